"""The DAG files of this project, and beside them the Python code they call."""
