"""Pure array code behind the models: masks and paste-back (numpy and cv2 only)."""
