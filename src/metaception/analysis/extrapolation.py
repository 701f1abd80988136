"""Extrapolation: support points from one part of the inputs, query points from another."""

from jaxtyping import PRNGKeyArray

from metaception.core.task import Task, TaskDistribution


class SupportElsewhere(TaskDistribution):
    """Each task's support set from one distribution and its query set from another, drawn with the same key.

    Two families that differ in their points alone (the interval of x, shots, queries) draw the same function from the
    same key, so the task is one function, seen in one place and judged in another.

    Args:
        seen: what the support set comes from.
        unseen: what the query set comes from.

    Examples:
        >>> import jax, metaception as mc
        >>> from metaception.analysis.extrapolation import SupportElsewhere
        >>> left, right = mc.Sinusoids(inputs=(-5.0, 0.0)), mc.Sinusoids(inputs=(0.0, 5.0), grid=True)
        >>> task = SupportElsewhere(left, right).sample(jax.random.key(0))
        >>> bool((task.support.inputs <= 0).all() and (task.query.inputs >= 0).all())
        True

    Finn et al. 2017, section 5.1: "the model learned with MAML has learned to model the periodic nature of the sine
    wave", from support points in one half of the range.
    """

    seen: TaskDistribution
    unseen: TaskDistribution

    def sample(self, key: PRNGKeyArray) -> Task:
        return Task(self.seen.sample(key).support, self.unseen.sample(key).query)
