"""What mouth-warp hears: how lips move in speech (`lips`), speech whose sounds are known (`speakers`), and the network that learns it (`train`).

`python -m tests.motion` makes `orchestrator/models/mouth_motion.npz` anew, in 20 minutes on two cores. It needs `pip install -e '.[motion]'`, and the
voices of flite and Festival, on Debian: `apt install flite festival festvox-us-slt-hts festvox-kdlpc16k festvox-ca-ona-hts festvox-italp16k
festvox-itapc16k festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph festvox-suopuhe-lj festvox-suopuhe-mv festvox-ru
festvox-hi-nsk`.
"""
