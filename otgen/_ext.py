"""Python loads this only where the compiled module is missing: in the source folder, or for another Python."""

raise ImportError(
    "otgen: the compiled half is not in this folder, which holds the source: start Python in another folder, where the"
    " installed otgen is found (pip install . makes it)"
)
