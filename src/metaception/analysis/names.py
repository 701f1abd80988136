"""What tables and pictures call layers and measures."""

LABELS = {"pwcca": "PWCCA", "mean_cca": "mean CCA", "cka": "CKA", "cka_debiased": "debiased CKA"}
"""The measures of `metaception.analysis.representation.MEASURES`."""


def layer_names(count: int) -> list[str]:
    """1, 2, … and `head` for the last layer.

    Examples:
        >>> layer_names(3)
        ['1', '2', 'head']
    """
    return [str(index + 1) for index in range(count - 1)] + ["head"]


def frozen_names(layers: int) -> list[str]:
    """The first layers that are frozen, from none to all.

    Examples:
        >>> frozen_names(3)
        ['none', '1', '1–2', 'all']
    """
    return ["none", *["1" if count == 1 else f"1–{count}" for count in range(1, layers)], "all"]
