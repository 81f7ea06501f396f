"""A checkout whose cells no stage ever ran for: a dvc.lock, and files in the cache."""

import hashlib
import io
import json
import pathlib
import subprocess

import numpy as np
import yaml
from PIL import Image

PARAMS = {
    "seed": 0,
    "data": {"source": "samples", "folder": "data/pictures", "more_train": [], "test": "source"},
    "prepare": {"crops": 8},
    "train": {"megapixels": 15.0, "learning_rate": 0.001, "step_range": [5.0, 130.0]},
    "pca": {"mode": "global"},
    "code": {"effort": 0, "rates_bpp": [0.1, 0.4, 1.5]},
}
PICTURES = (("baboon", -2.0), ("astronaut", 2.0))
RATES_BPP = (0.1, 0.2, 0.4, 0.8, 1.5)


class FakeCheckout:
    """Git repository at `root` with a dvc.lock that `add_cell` fills."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.stages: dict[str, dict[str, object]] = {}
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")
        (root / ".gitignore").write_text("/.dvc/\n/.mlflow/\n")
        self.prepared = self._folder({"baboon.png": b"the test pictures"})
        params = {name: PARAMS[name] for name in ("seed", "data", "prepare")}
        self._stage("prepare", {}, params, "artifacts/prepared", self.prepared)
        self._measure_anchors()
        self.commit()

    def _measure_anchors(self) -> None:
        test = {"artifacts/prepared/test": self.prepared}
        self._stage("anchors", test, {}, "artifacts/anchors", self._folder(_anchors()))

    def test_on(self, pictures: bytes) -> None:
        """Exchange the test pictures, and measure the anchors alone on them."""
        self.prepared = self._folder({"baboon.png": pictures})
        self._measure_anchors()
        self._write_lock()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> None:
        self._write_lock()
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "state")

    def add_cell(
        self,
        name: str,
        gain_db: float = 0.0,
        seconds: float = 1.0,
        seed: int = 0,
        **train: object,
    ) -> None:
        """Finish a cell: its PSNR is `gain_db` above that of the anchors."""
        arch, loss = name.split("-")
        weights = f"weights of {name} {gain_db} {seed} {train}".encode()
        trained = {"model.safetensors": weights, "model.json": b"{}", "history.csv": HISTORY}
        rotated = {"rotation.safetensors": b"rotation", "energy.csv": b"band,share\n0,1.0\n"}
        coded = {
            "codec/model.safetensors": weights,
            "codec/model.json": b"{}",
            "files/baboon-0.lino": b"LINO",
            "coded.csv": b"picture,point\nbaboon,0\n",
        }
        evaluated = {
            "evaluation.csv": _evaluation(gain_db, seconds),
            "pictures/baboon-2.png": _png(),
        }
        train_params = {f"train.{key}": value for key, value in (PARAMS["train"] | train).items()}
        md5 = {}
        test = {"artifacts/prepared/test": self.prepared}
        for stage, folder, params, deps, files in (
            ("train", "trained", {"seed": seed, **train_params,
             f"arch.{arch}": {"levels": 5}, f"loss.{loss}": {}},
             {"artifacts/prepared/train.npy": "a" * 32}, trained),
            ("fit_pca", "rotated", {"pca": PARAMS["pca"]}, {}, rotated),
            ("entropy_code", "coded", {"code": PARAMS["code"]}, test, coded),
            ("evaluate", "evaluated", {"compare": {}}, test, evaluated),
        ):  # fmt: skip
            out = f"artifacts/{folder}/{name}"
            md5[out] = self._folder(files)
            inputs = deps | {path: md5[path] for path in list(md5)[:-1]}
            self._stage(f"{stage}@{name}", inputs, params, out, md5[out])
        self._write_lock()

    def save_experiment(self, name: str) -> None:
        """Move the state of dvc.lock into a DVC experiment, and go back to the last commit."""
        self.git("checkout", "-q", "--detach")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", name)
        base = self.git("rev-parse", "HEAD~1")
        self.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", "HEAD")
        self.git("checkout", "-q", "main")
        self.stages = yaml.safe_load((self.root / "dvc.lock").read_text())["stages"]

    def _stage(self, name, deps, params, out, md5) -> None:
        self.stages[name] = {
            "cmd": f"python stages/{name}.py",
            "deps": [{"path": path, "hash": "md5", "md5": value} for path, value in deps.items()],
            "params": {"params.yaml": params},
            "outs": [{"path": out, "hash": "md5", "md5": md5, "size": 1, "nfiles": 1}],
        }

    def _write_lock(self) -> None:
        text = yaml.safe_dump({"schema": "2.0", "stages": self.stages})
        (self.root / "dvc.lock").write_text(text)

    def _folder(self, files: dict[str, bytes]) -> str:
        listing = [{"md5": self._put(content), "relpath": name} for name, content in files.items()]
        text = json.dumps(sorted(listing, key=lambda item: item["relpath"])).encode()
        return self._put(text, suffix=".dir")

    def _put(self, content: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(content).hexdigest() + suffix
        path = self.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5


HISTORY = (
    b"megapixels,loss,rate_bpp,distortion,psnr_db,learning_rate,seconds\n"
    b"0.0,2.0,1.0,0.01,20.0,0.001,0.0\n7.5,1.5,0.8,0.008,24.0,0.0005,5.0\n"
    b"15.0,1.0,0.5,0.005,27.0,0.0,10.0\n"
)


def _psnr_db(bpp: float) -> float:
    return 30 + 6 * float(np.log2(bpp))


def _evaluation(gain_db: float, seconds: float) -> bytes:
    qualities = "psnr_db,ssim,ms_ssim,ssimulacra2"
    lines = [f"picture,point,step,bytes,bpp,estimated_bpp,{qualities},encode_s,decode_s"]
    for picture, shift in PICTURES:
        for point, bpp in enumerate(RATES_BPP):
            psnr_db = _psnr_db(bpp) + shift + gain_db
            step = 130.0 / (point + 1) ** 2
            lines.append(
                f"{picture},{point},{step},{round(bpp * 1000)},{bpp},{bpp / 1.01},"
                f"{psnr_db},{0.7 + 0.05 * point},{0.9 + 0.02 * point},{20 + 15 * point},"
                f"{seconds},{seconds}"
            )
    return "\n".join(lines).encode()


def _anchors() -> dict[str, bytes]:
    lines = ["codec,picture,setting,bytes,bpp,psnr_db,ssim,ms_ssim,ssimulacra2,encode_s,decode_s"]
    for codec in ("jpeg", "jpeg2000"):
        for picture, shift in PICTURES:
            for setting, bpp in enumerate(RATES_BPP):
                row = f"{setting},1000,{bpp},{_psnr_db(bpp) + shift},{0.7 + 0.05 * setting}"
                similar = f"{0.9 + 0.02 * setting},{20 + 15 * setting}"
                lines.append(f"{codec},{picture},{row},{similar},1,1")
    return {"anchors.csv": "\n".join(lines).encode()}


def _png() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(data, "PNG")
    return data.getvalue()
