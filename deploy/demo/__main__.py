"""Make the demo's clip and speech where they are missing: `python -m deploy.demo FOLDER`."""

import sys
from pathlib import Path

from deploy.demo.clip import make_clip
from deploy.demo.speech import make_speech


def main() -> None:
    """Put `clip.mp4` and `speech.wav` into the folder given on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (("clip.mp4", make_clip), ("speech.wav", make_speech)):
        if not (folder / name).exists():
            partial = folder / f"new-{name}"
            make(partial)
            partial.replace(folder / name)


if __name__ == "__main__":
    main()
