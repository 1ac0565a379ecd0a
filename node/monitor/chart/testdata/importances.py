"""Reads trials as JSON and prints Optuna's importances of their parameters, and the mean by each value."""
import json
import statistics
import sys

import optuna
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

optuna.logging.set_verbosity(optuna.logging.ERROR)
trials = json.load(sys.stdin)
values = {key: sorted({t["params"][key] for t in trials}) for key in trials[0]["params"]}
study = optuna.create_study()
kinds = {key: optuna.distributions.CategoricalDistribution(v) for key, v in values.items()}
study.add_trials([optuna.trial.create_trial(params=t["params"], distributions=kinds, value=t["value"]) for t in trials])
print(json.dumps({
    "fanova": get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=1)),
    "ped": get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()),
    "mean": {k: {v: statistics.fmean(t["value"] for t in trials if t["params"][k] == v) for v in values[k]} for k in values},
}))
