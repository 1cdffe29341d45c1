"""``python -m napari_unetseg.cli``: the command line where the script is not on the path."""

from napari_unetseg.cli import main

main()
