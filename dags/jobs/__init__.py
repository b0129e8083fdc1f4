"""What the example DAGs call: plain functions of JSON values that return a mapping, the task's outputs."""
