"""What llama.cpp computes for a batch, without data: enough to say how much memory each device needs for it."""
