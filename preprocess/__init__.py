"""Pure array code in front of the models: audio features, letterboxing, tracks and alignment (numpy and cv2 only)."""

import cv2

# The stages of a render are threads that fill the cores; a pool of cv2's own would only add hand-overs between them.
cv2.setNumThreads(1)
