"""An independent look at a rendered image: whether a relation holds, by other rules than the library's."""

import numpy as np


class Eye:
    """Looks at the ids and depth of an image, and at the scene for what stands on what; subjects from 1."""

    def __init__(self, scene, truth):
        self.masks, self.amodal, self.scene = truth.masks, truth.amodal, scene
        size = truth.masks.shape[1]
        self.pixels = [np.argwhere(mask) / size for mask in truth.masks]
        self.nearness = {n: place for place, n in enumerate(truth.depth_order)}

    def middle(self, n):
        """(x, y) of the visible part."""
        y, x = self.pixels[n - 1].mean(0)
        return x, y

    def span(self, n):
        x = self.pixels[n - 1][:, 1]
        return x.min(), x.max()

    def sees(self, i, name, j):
        if name == "between":
            (a, b), x = j, self.middle(i)[0]
            return min(self.middle(a)[0], self.middle(b)[0]) < x < max(self.middle(a)[0], self.middle(b)[0])
        (xi, yi), (xj, yj) = self.middle(i), self.middle(j)
        apart = max(self.span(i)[0], self.span(j)[0]) - min(self.span(i)[1], self.span(j)[1])
        if name == "on":
            upper, lower = self.scene.subjects[i - 1], self.scene.subjects[j - 1]
            near = np.hypot(*np.subtract(upper.position, lower.position)) < 0.5
            return upper.height > lower.height and near and yi < yj
        return {
            "left of": xi < xj,
            "right of": xi > xj,
            "in front of": self.nearness[i] < self.nearness[j],
            "behind": self.nearness[i] > self.nearness[j],
            "next to": apart < 0.1,
            "far from": np.hypot(xi - xj, yi - yj) > 0.5,
            "hides": bool((self.masks[i - 1] & self.amodal[j - 1]).any()),
        }[name]
