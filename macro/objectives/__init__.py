"""Training objectives. `OBJECTIVES[config.objective]` is a module with

    init(key, config) -> params                                      random
    totals(batch, config) -> weights                                 total weights, the denominators of its means
    loss(params, batch, key, config, totals) -> (scalar, metrics)    shares of means: those of a batch's parts sum up
    report(metrics) -> metrics                                       of a whole batch, for display
    FROZEN                                                           regexes of parameter paths that are never trained
    AXES                                                             rules of `macro/parallel/sharding.py`

and, if its layers can have LoRA adapters (in `params["lora"]`, `macro/nn/layers.py`),

    cast_frozen(params, config) -> params                            cast to their compute types
"""

from macro.objectives import autoencoder, joint

OBJECTIVES = {"joint": joint, "autoencoder": autoencoder}
