"""What the claims about speed and robustness are measured with."""

from linocut.lab.config import process as process  # before PyTorch: how its threads wait
