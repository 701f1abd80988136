"""BibTeX for what a run may have used."""

from __future__ import annotations

from collections.abc import Iterable

from metaception._version import __version__

LIBRARY = "metaception"
"""The key of this library's own entry."""

BIBTEX: dict[str, str] = {
    LIBRARY: f"""@software{{metaception,
  author  = {{{{The Metaception developers}}}},
  title   = {{Metaception: every flavour of learning to learn}},
  version = {{{__version__}}},
  url     = {{https://github.com/metaception/metaception}},
}}""",
    "finn2017maml": """@inproceedings{finn2017maml,
  author    = {Finn, Chelsea and Abbeel, Pieter and Levine, Sergey},
  title     = {Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  series    = {Proceedings of Machine Learning Research},
  volume    = {70},
  pages     = {1126--1135},
  year      = {2017},
}""",
    "lake2015omniglot": """@article{lake2015omniglot,
  author  = {Lake, Brenden M. and Salakhutdinov, Ruslan and Tenenbaum, Joshua B.},
  title   = {Human-level concept learning through probabilistic program induction},
  journal = {Science},
  volume  = {350},
  number  = {6266},
  pages   = {1332--1338},
  year    = {2015},
}""",
    "vinyals2016matching": """@inproceedings{vinyals2016matching,
  author    = {Vinyals, Oriol and Blundell, Charles and Lillicrap, Timothy and Kavukcuoglu, Koray and Wierstra, Daan},
  title     = {Matching Networks for One Shot Learning},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {29},
  year      = {2016},
}""",
    "ravi2017lstm": """@inproceedings{ravi2017lstm,
  author    = {Ravi, Sachin and Larochelle, Hugo},
  title     = {Optimization as a Model for Few-Shot Learning},
  booktitle = {International Conference on Learning Representations},
  year      = {2017},
}""",
    "bertinetto2019r2d2": """@inproceedings{bertinetto2019r2d2,
  author    = {Bertinetto, Luca and Henriques, Jo{\\~a}o F. and Torr, Philip H. S. and Vedaldi, Andrea},
  title     = {Meta-learning with Differentiable Closed-Form Solvers},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
}""",
    "nichol2018reptile": """@article{nichol2018reptile,
  author  = {Nichol, Alex and Achiam, Joshua and Schulman, John},
  title   = {On First-Order Meta-Learning Algorithms},
  journal = {arXiv preprint arXiv:1803.02999},
  year    = {2018},
}""",
    "li2017metasgd": """@article{li2017metasgd,
  author  = {Li, Zhenguo and Zhou, Fengwei and Chen, Fei and Li, Hang},
  title   = {{Meta-SGD}: Learning to Learn Quickly for Few-Shot Learning},
  journal = {arXiv preprint arXiv:1707.09835},
  year    = {2017},
}""",
    "raghu2020anil": """@inproceedings{raghu2020anil,
  author    = {Raghu, Aniruddh and Raghu, Maithra and Bengio, Samy and Vinyals, Oriol},
  title     = {Rapid Learning or Feature Reuse? {T}owards Understanding the Effectiveness of {MAML}},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
}""",
    "rajeswaran2019imaml": """@inproceedings{rajeswaran2019imaml,
  author    = {Rajeswaran, Aravind and Finn, Chelsea and Kakade, Sham M. and Levine, Sergey},
  title     = {Meta-Learning with Implicit Gradients},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  year      = {2019},
}""",
    "yoon2018bmaml": """@inproceedings{yoon2018bmaml,
  author    = {Yoon, Jaesik and Kim, Taesup and Dia, Ousmane and Kim, Sungwoong and Bengio, Yoshua and Ahn, Sungjin},
  title     = {Bayesian Model-Agnostic Meta-Learning},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {31},
  year      = {2018},
}""",
    "finn2018platipus": """@inproceedings{finn2018platipus,
  author    = {Finn, Chelsea and Xu, Kelvin and Levine, Sergey},
  title     = {Probabilistic Model-Agnostic Meta-Learning},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {31},
  year      = {2018},
}""",
    "kemaev2025mixflow": """@inproceedings{kemaev2025mixflow,
  author    = {Kemaev, Iurii and Calian, Dan A. and Zintgraf, Luisa M. and Farquhar, Gregory and van Hasselt, Hado},
  title     = {Scalable Meta-Learning via Mixed-Mode Differentiation},
  booktitle = {Proceedings of the 42nd International Conference on Machine Learning},
  year      = {2025},
  note      = {arXiv:2505.00793},
}""",
}


def bibtex(keys: Iterable[str]) -> str:
    """The entries of these keys, each once, in the order given.

    Examples:
        >>> print(bibtex(["li2017metasgd"]).splitlines()[0])
        @article{li2017metasgd,
    """
    return "\n\n".join(BIBTEX[key] for key in dict.fromkeys(keys))
