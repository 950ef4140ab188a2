"""The benches measure the pipeline as it is: what they change of the shipped model fits it."""

from experiments import bench_sample


def test_the_stretched_model_takes_images_of_so_many_patches():
    for tokens in (16, 144):
        pipeline, pixels = bench_sample.stretched(tokens)
        spec = pipeline.packing.images
        assert spec.vit_size((pixels, pixels)) == (pixels, pixels)
        assert (pixels // pipeline.config.vision.patch) ** 2 == tokens
        table = pipeline.params["composer"]["planner"]["vision"]["position_embedding"]
        assert table.shape[0] == pipeline.config.vision.side**2 >= tokens
