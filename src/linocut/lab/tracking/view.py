"""How MLflow's table of runs opens: the cells by BD-rate, with the columns that tell them apart.

MLflow keeps a view of its table in a tag of the experiment; its address names the view.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from linocut.lab.tracking.results import BD_RATES

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "cells"
RANKED_BY = f"metrics.`{BD_RATES}/PSNR vs jpeg2000`"
WIDTHS_PX = {
    "params.`arch`": 100,
    "params.`loss`": 90,
    RANKED_BY: 260,
    f"metrics.`{BD_RATES}/MS-SSIM vs jpeg2000`": 270,
    "metrics.`eval/PSNR dB at 0.5 bpp`": 200,
    "metrics.`eval/MS-SSIM dB at 0.5 bpp`": 220,
    "metrics.`eval/rate over estimate percent`": 230,
    "params.`train.megapixels`": 130,
    "tags.`dvc.exp`": 160,
}


def save_view(client: MlflowClient, experiment: str, parents: Sequence[str]) -> str:
    """Describe the table; gives the path of its address on an MLflow server.

    Args:
        client: of the store.
        experiment: its id.
        parents: runs whose children are shown.
    """
    view = {
        "orderByKey": RANKED_BY,
        "orderByAsc": True,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(WIDTHS_PX),
        "columnOrder": list(WIDTHS_PX),
        "columnWidths": WIDTHS_PX,
        "runsExpanded": dict.fromkeys(parents, True),
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))
    client.set_experiment_tag(experiment, "mlflow.experimentKind", "custom_model_development")
    return (
        f"/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    )
