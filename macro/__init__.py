"""macro: reads a sentence with images in it, plans the scene and generates the image.

    pipeline = macro.load("demo")
    result = pipeline.compose("<image 1> left of <image 2>", ["dog.png", "house.png"])
    result.plan.cot, result.plan.grid, result.pixels

Read next: `macro/sampling/pipeline.py`; what a sentence is: `macro/sentence/spans.py`.
"""

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # Lazily: importing the package must not start JAX, which worker processes must not touch.
    if name == "load":
        from macro.sampling.load import load

        return load
    raise AttributeError(f"module 'macro' has no attribute {name!r}")
