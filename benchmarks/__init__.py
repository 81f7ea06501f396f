"""What the claims about speed and robustness are measured with."""
