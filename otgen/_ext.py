"""Python loads this only where the compiled module is missing."""

raise ImportError(
    "otgen: the compiled half is not in this folder: it holds the source, or was built for another Python. Install it"
    " (pip install .) and start Python outside the source folder"
)
