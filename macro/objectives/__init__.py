"""What a batch is scored on. `OBJECTIVES[config.objective]` is a module with

    init(key, config) -> params                                      at random
    totals(batch, config) -> weights                                 of what its means are over
    loss(params, batch, key, config, totals) -> (scalar, metrics)    shares of means: those of a batch's parts add up
    report(metrics) -> metrics                                       of a whole batch, as they are shown
    FROZEN                                                           regexes of parameter paths that are never trained
    AXES                                                             rules of `macro/parallel/sharding.py`

and, where the layers it trains can have LoRA's adapters (then `params["lora"]` holds them, `macro/nn/layers.py`),

    cast_frozen(params, config) -> params                            in the types they are multiplied in
"""

from macro.objectives import autoencoder, joint

OBJECTIVES = {"joint": joint, "autoencoder": autoencoder}
