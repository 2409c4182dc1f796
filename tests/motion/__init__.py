"""What mouth-warp hears: how lips move in speech (`lips`), speech whose sounds are known (`speakers`), and the network that learns it (`train`).

`python -m tests.motion` makes `orchestrator/models/mouth_motion.npz` anew. It needs `pip install -e '.[motion]'` and flite (Debian: `apt install
flite`), and takes 20 minutes on two cores.
"""
