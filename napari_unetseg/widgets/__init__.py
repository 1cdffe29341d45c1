"""The window: the only room that knows Qt and napari. One panel for each task of the user."""
