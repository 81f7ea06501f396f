"""The cells of the grid on many machines: Ray hands them out, DVC runs them and moves files.

HEAD, params.yaml --head--> a Ray task for every group of stages: pretrain@cae;
    train@cae-l2, fit_pca@cae-l2 ... evaluate@cae-l2; anchors
    --worker, on any node: clone, `dvc repro --pull`, `dvc push --run-cache`--> the DVC remote
the remote --head: `dvc repro --pull`--> reports/, and nothing was trained here
"""
