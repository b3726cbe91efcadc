"""Training: the loop, the step, replicas, capture, and what a run needs to be taken up again."""
