"""What a batch is scored on. `OBJECTIVES[config.objective]` is a module with

    init(key, config) -> params        loss(params, batch, key, config) -> (scalar, metrics)
    FROZEN                             regular expressions of parameter paths that are never trained
"""

from macro.objectives import autoencode, joint

OBJECTIVES = {"joint": joint, "autoencode": autoencode}
