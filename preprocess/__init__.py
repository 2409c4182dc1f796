"""Pure array code in front of the models: audio features, letterboxing, tracks and alignment (numpy, scipy and cv2 only)."""
