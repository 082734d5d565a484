"""The estimator: parameters, `fit`, and what a fitted model answers.

What imports skorch is imported where something is trained: importing it takes longer than all else.
"""

from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from sklearn_cls._compat import (
    CallbackSupportMixin,
    Interval,
    StrOptions,
    fit_context,
    with_callbacks,
)
from sklearn_cls._data.sequences import check_sequences
from sklearn_cls._data.targets import check_labels, check_targets, stratified_split
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.embedding import EMBEDDINGS, POSITIONS
from sklearn_cls._network.encoder import ACTIVATIONS, POOLINGS
from sklearn_cls._torch.device import gradients, resolve_device
from sklearn_cls._torch.random import draw_seed
from sklearn_cls._training.auto import check_consistency, plan_network, plan_training
from sklearn_cls._version import DOCUMENTATION

AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
AUTO = StrOptions({"auto"})


class CLSTransformerClassifier(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    BaseEstimator,
):
    """Transformer classifier of sequences that reads each into one [CLS] vector.

    A [CLS] token is put before the steps of a sequence, a transformer encoder lets it read them,
    and a linear layer classifies what it read. Sequences may be multivariate, of unequal
    length and have missing values. `transform` gives the [CLS] vector, `cls_attention` what
    [CLS] reads.

    Parameters
    ----------
    cls_strategy : {"learned", "zeros", "fixed", "random"}, default="learned"
        Where the value of the [CLS] token comes from: a parameter that is trained; zeros; one
        normal draw that stays; a normal draw for every sequence of every training batch, and
        one draw of the fitted seed for all predictions. Only used if `pooling` is "cls".

    pooling : {"cls", "mean", "max", "attention"}, default="cls"
        How the encoder's output becomes one vector: the [CLS] token; the mean or the maximum
        over steps, without a token; a learned query that joins in the last block only.

    depth : int, default=2
        Number of encoder blocks. The last one costs next to nothing with `pooling="cls"`.

    d_model : int, default=64
        Width of the tokens and of what `transform` returns, a multiple of `n_heads`.

    n_heads : int, default=4
        Attention heads. Below 16 entries a head (`d_model / n_heads`) attention gets slow.

    dim_feedforward : int, default=128
        Width of the hidden layer in each block.

    dropout : float in [0, 1), default=0.1
        Dropout rate of tokens, residuals and the feed-forward, to the nearest 1/256; attention
        weights have none.

    activation : {"gelu", "relu", "silu"}, default="gelu"
        Of the feed-forward.

    embedding : {"linear", "conv"}, default="conv"
        What a token is made of: the steps of its patch as they are, or what two convolutions
        with batch norm find around it.

    patch_size : int or "auto", default="auto"
        Steps a token. "auto" is the least that cuts a training sequence of median length into
        at most 64 tokens.

    positions : {"sinusoidal", "learned", "rope"} or None, default="sinusoidal"
        How tokens know their place: added sinusoids of half the usual height, added parameters
        (then no sequence may be longer than the longest seen in `fit`), or rotations of queries
        and keys. None is for sets, whose order says nothing. [CLS] has no position.

    standardize : bool, default=True
        Scale each feature by the mean and deviation of the training data, inside the network.
        If in a tenth of the sequences some feature varies a hundred times less than in all, each
        sequence is shown to the network by its own mean and deviation too.

    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is what makes 600 updates, in batches below 32
        more (850 of 16, 1200 of 8), and at least 10.

    batch_size : int or "auto", default="auto"
        Sequences an update. "auto" is a power of 2 near a tenth of the training sequences, from
        8 to 128. Batches are of nearly equal size.

    lr : float or "auto", default="auto"
        Peak step size of AdamW, reached after `warmup_fraction` of all updates and lowered along
        half a cosine to 0. "auto" is 2e-3 for batches of 16, with the root of the batch size
        1.4e-3 to 5.7e-3 for 8 to 128, times 64 / `d_model` in a network wider than 64. Too
        high shows as a loss that jumps; halve it.

    weight_decay : float, default=0.01
        Decoupled weight decay of the matrices; biases, norms, positions and [CLS] have none.

    warmup_fraction : float in [0, 1), default=0.1
        Share of all updates in which the step size rises.

    label_smoothing : float in [0, 1), default=0.1
        Share of each target that is spread evenly over the classes.

    augment : bool, default=True
        Vary the training sequences: play each at a random, changing speed, and replace a stretch
        of half of them by that of another sequence, whose class then gets this share of the
        target. False where speed itself, or a single step, decides the class, where steps are
        codes, and for sets.

    class_weight : dict, "balanced" or None, default=None
        Weight of each class in the loss, multiplied with `sample_weight`. "balanced" weights
        classes inversely to their frequency.

    early_stopping : bool, default=False
        Hold out some training sequences and stop when the loss on them has not fallen for
        `n_iter_no_change` epochs. The weights of the best epoch are restored.

    validation_fraction : float in (0, 1), default=0.1
        Share of the training sequences held out to decide when to stop, split by class.
        Only used if `early_stopping` is True.

    n_iter_no_change : int, default=10
        Epochs without improvement before stopping. Only used if `early_stopping` is True.

    warm_start : bool, default=False
        Start `fit` from the weights of the previous one. Classes, features and the parameters
        of the architecture must be the same; inputs are standardised as they were there.

    device : str or torch.device, default="auto"
        "auto" is CUDA if there is any, else the CPU; or "cpu", "cuda", "cuda:1", "mps". With
        several CUDA devices, parallel workers of a search take them in turn.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "auto" is bfloat16 autocast on CUDA that has it, float32 elsewhere.

    compile : bool, default=False
        Whether to train with blocks compiled by :func:`torch.compile`, which takes up to a minute
        before the first epoch is done and needs a C++ compiler, on CUDA Triton: for long fits of
        deep and wide networks on a GPU. On the CPU nothing is gained.

    n_jobs : int or None, default=None
        Torch threads of this estimator; -1 is one per core. None is one for every 131,072 numbers
        that the tokens of a training batch hold (sequences x tokens x `d_model`), at least one
        and at most as many as torch is set to: small batches gain nothing by more. Predictions
        count the tokens of all sequences, and compute batches of them side by side.

    callbacks : list of skorch callbacks or None, default=None
        Called while training, see :mod:`skorch.callbacks`. They are kept as they are, and one
        that asks to stop ends the training. Scikit-learn's own go to `set_callbacks`.

    random_state : int, RandomState instance or None, default=None
        Seed of everything random: weights, dropout, the token, batches, the validation split.
        An int repeats a fit bit by bit, given the same device and number of threads.

    verbose : int, default=0
        1 shows a progress bar with epoch, loss and time left.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.

    n_features_in_ : int
        Features of a step; for a 2-D X its number of columns, which are the steps.

    feature_names_in_ : ndarray of shape (n_features,)
        Column names, if X was a data frame.

    n_iter_ : int
        Epochs trained.

    history_ : list of dict
        For each epoch its "train_loss", on what `augment` made, "lr" at its end and "dur" in
        seconds, with early stopping "valid_loss" and "valid_accuracy", and whether a loss was the
        "_best" so far.

    loss_curve_ : list of float
        Training loss of each epoch.

    net_ : skorch.NeuralNetClassifier
        What trained the network.

    module_ : torch.nn.Module
        The network.

    device_ : torch.device
        Where the network is.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : A network for vectors.

    Notes
    -----
    The encoder is that of [1]_, read at a [CLS] token as in [2]_. The last block computes the [CLS]
    row only, with the same result as the whole encoder, as the page "How it works" derives. Sums in
    float32 depend on their order, so that the same sequence in another batch may give probabilities
    that differ in the last digits.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    .. [2] Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
       Understanding", NAACL 2019.

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn_cls import CLSTransformerClassifier
    >>> from sklearn_cls.datasets import load_digit_sequences
    >>> X, y = load_digit_sequences()  # 8 steps (rows) of 8 features (pixels)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> clf = CLSTransformerClassifier(random_state=0).fit(X_train, y_train)
    >>> clf.score(X_test, y_test) > 0.95
    True
    >>> clf.transform(X_test).shape
    (450, 64)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn reads it from the class
        "cls_strategy": [StrOptions(set(CLS_STRATEGIES))],
        "pooling": [StrOptions(set(POOLINGS))],
        "depth": [AT_LEAST_1],
        "d_model": [AT_LEAST_1],
        "n_heads": [AT_LEAST_1],
        "dim_feedforward": [AT_LEAST_1],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "embedding": [StrOptions(set(EMBEDDINGS))],
        "patch_size": [AT_LEAST_1, AUTO],
        "positions": [StrOptions(set(POSITIONS)), None],
        "standardize": ["boolean"],
        "max_epochs": [AT_LEAST_1, AUTO],
        "batch_size": [AT_LEAST_1, AUTO],
        "lr": [Interval(Real, 0, None, closed="neither"), AUTO],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "augment": ["boolean"],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [AT_LEAST_1],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "compile": ["boolean"],
        "n_jobs": [AT_LEAST_1, Interval(Integral, None, -1, closed="right"), None],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Where the diagram of scikit-learn links to.
    _doc_link_module = "sklearn_cls"
    _doc_link_template = DOCUMENTATION + "generated/{estimator_module}.{estimator_name}.html"

    def __init__(
        self,
        *,
        cls_strategy="learned",
        pooling="cls",
        depth=2,
        d_model=64,
        n_heads=4,
        dim_feedforward=128,
        dropout=0.1,
        activation="gelu",
        embedding="conv",
        patch_size="auto",
        positions="sinusoidal",
        standardize=True,
        max_epochs="auto",
        batch_size="auto",
        lr="auto",
        weight_decay=0.01,
        warmup_fraction=0.1,
        label_smoothing=0.1,
        augment=True,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        device="auto",
        precision="auto",
        compile=False,
        n_jobs=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.cls_strategy = cls_strategy
        self.pooling = pooling
        self.depth = depth
        self.d_model = d_model
        self.n_heads = n_heads
        self.dim_feedforward = dim_feedforward
        self.dropout = dropout
        self.activation = activation
        self.embedding = embedding
        self.patch_size = patch_size
        self.positions = positions
        self.standardize = standardize
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.label_smoothing = label_smoothing
        self.augment = augment
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.compile = compile
        self.n_jobs = n_jobs
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, checkpoint=None):
        """Train on sequences.

        Ctrl-C ends the training with a warning and a usable model: of the best epoch with
        `early_stopping`, and otherwise of the last update. Before the first epoch is done it
        is raised, and the estimator is as it was.

        If a GPU has not enough memory for a batch, it is computed in parts, with a warning.

        Parameters
        ----------
        X : array-like of shape (n_sequences, n_steps, n_features) or (n_sequences, n_steps), \
                or list of arrays of shape (n_steps_i, n_features) or (n_steps_i,)
            The sequences. NaN is a missing value, and steps that are all NaN at the end of a
            sequence are padding. A memory map is read batch by batch.

        y : array-like of shape (n_sequences,)
            Class labels.

        sample_weight : array-like of shape (n_sequences,), default=None
            How much the loss of each sequence counts; one of weight 0 is left out.

        checkpoint : str, path-like or None, default=None
            A file for a long fit. It is written whole after every epoch, of short ones every 5
            seconds, and removed when the fit is done. After a crash, the same call goes on
            from there, and ends, on the same machine and number of threads, with the weights of
            a fit that was never interrupted. `n_jobs`, `verbose` and `callbacks` may be others.

        Returns
        -------
        self : CLSTransformerClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, X, y or `sample_weight` is not as described, if `checkpoint` is of
            other data or parameters, or if the loss or a weight is no longer finite. The
            estimator is then as it was.
        OSError
            If the first checkpoint cannot be written; a later one is a warning.
        """
        from sklearn_cls._persistence.checkpoint import open_checkpoint
        from sklearn_cls._training.callbacks import EpochBar, ScikitLearnCallbacks, early_stopping

        bar = EpochBar()
        with _unchanged_on_error(self), gradients(), bar:
            start = getattr(self, "net_", None) if self.warm_start else None
            device, callbacks = self._check_consistency(start)
            sequences = check_sequences(self, X, reset=start is None, max_length=_reach(start))
            classes = None if start is None else self.classes_
            self.classes_, data = check_targets(self, sequences, y, sample_weight, classes)
            checkpoint = open_checkpoint(checkpoint, self, data, device, start)
            seed = draw_seed(self.random_state, 0 if start is None else start.n_epochs_so_far)
            seed = checkpoint.seed_of(seed)
            train, valid = data, None
            if self.early_stopping:
                train, valid = stratified_split(data, self.validation_fraction, seed)
                callbacks.append(early_stopping(self.n_iter_no_change))
            training = plan_training(self, len(train))

            metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
            hooks = {"estimator": self, "X": X, "y": y, "metadata": metadata}
            context = self._init_callback_context(max_subtasks=training["max_epochs"])
            context.call_on_fit_task_begin(**hooks)
            callbacks += [bar] if self.verbose else []
            callbacks.append(ScikitLearnCallbacks(context, hooks))
            net = self._build(
                data, train, training, start, seed, device=device, callbacks=callbacks, valid=valid
            )
            with checkpoint:
                self.net_ = net.train(train, self.n_jobs, checkpoint).forget_training()
                context.call_on_fit_task_end(**hooks, reconstruction_attributes=dict)
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Make one pass over some sequences, at the step size `lr`.

        The first call decides features and classes, and by what inputs are standardised.
        `max_epochs`, `warmup_fraction` and `early_stopping` are not used, and weights count as
        they are. A copy of the estimator, or one from a file, starts the optimiser anew.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `fit`.

        y : array-like of shape (n_sequences,)
            Class labels.

        classes : array-like of shape (n_classes,), default=None
            All classes there will be; needed in the first call only, and only if its `y` lacks
            some.

        sample_weight : array-like of shape (n_sequences,), default=None
            As in `fit`.

        Returns
        -------
        self : CLSTransformerClassifier
            The estimator.
        """
        from sklearn_cls._persistence.checkpoint import Checkpoint

        self._validate_params()  # scikit-learn's decorator does so in the first call only
        with _unchanged_on_error(self), gradients():
            start = getattr(self, "net_", None)
            device, callbacks = self._check_consistency(start)
            if self.class_weight == "balanced":
                raise ValueError(
                    "class_weight='balanced' needs all sequences at once, which partial_fit never "
                    "sees; pass a dict of the classes' weights."
                )
            sequences = check_sequences(self, X, reset=start is None, max_length=_reach(start))
            if start is not None:
                classes = self._check_classes(classes)
            self.classes_, data = check_targets(
                self, sequences, y, sample_weight, classes, is_part=True
            )
            training = plan_training(self, len(data), one_pass=True)
            seed = draw_seed(self.random_state, 0 if start is None else start.n_epochs_so_far)
            net = self._build(data, data, training, start, seed, device=device, callbacks=callbacks)
            net.train(data, self.n_jobs, Checkpoint())
            self.net_ = net.forget_training(keep_optimizer=True)
        return self

    def predict(self, X):
        """Return the most probable class of each sequence.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `fit`; they may be longer than any seen there, unless `positions`
            is "learned".

        Returns
        -------
        y : ndarray of shape (n_sequences,)
            Class labels.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X):
        """Return the probability of each class for each sequence.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        probabilities : ndarray of shape (n_sequences, n_classes), float32
            In the order of `classes_`.
        """
        return self._compute(X, lambda **batch: self.module_(**batch).float().softmax(-1))

    def transform(self, X):
        """Return the [CLS] vector of each sequence, after the final norm.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        embeddings : ndarray of shape (n_sequences, d_model), float32
            What the last linear layer classifies.
        """
        return self._compute(X, lambda **batch: self.module_.embed(**batch))

    def cls_attention(self, X):
        """Return what [CLS] attends to.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        attention : ndarray of shape (n_sequences, n_blocks, n_heads, n_steps), float32
            The share of each step, a patch's spread evenly over its steps; sums to 1 over the
            steps of a sequence, and is 0 after its end. `n_steps` is that of the array, or of
            the longest sequence of a list. What [CLS] gives to itself is left
            out. `n_blocks` is `depth`, or 1 if `pooling` is "attention", whose query joins in
            the last block only.

        Raises
        ------
        ValueError
            If `pooling` is "mean" or "max": nothing attends there.
        """
        check_is_fitted(self)
        if self.module_.pooling in ("mean", "max"):
            raise ValueError(
                f"cls_attention needs a token that attends, and pooling={self.module_.pooling!r} "
                "has none; fit with pooling='cls' or 'attention'."
            )
        return self._compute(X, lambda **batch: self.module_.cls_attention(**batch), of_steps=True)

    def save(self, path):
        """Write the fitted estimator to a file without pickle.

        Weights are tensors in the format of safetensors; parameters, classes, features and the
        history are JSON in its metadata. The file is written beside `path`, flushed and
        renamed, so that a crash leaves the old file or the new one.

        Parameters
        ----------
        path : str or path-like
            By custom it ends in ".safetensors".

        Raises
        ------
        OSError
            If the file cannot be written; one that was there is then as it was.
        TypeError
            If a class label is neither text, bytes, a number nor a date.

        Warns
        -----
        UserWarning
            If there are `callbacks`, which are code and are left out.

        See Also
        --------
        load : The way back.

        Notes
        -----
        Left out are also metadata requests (`set_fit_request`), the optimiser, and of the history
        what callbacks recorded other than text and numbers; `joblib.dump` keeps requests.
        """
        from sklearn_cls._persistence.model_file import save_estimator

        save_estimator(self, path)

    @classmethod
    def load(cls, path, device="auto"):
        """Return the estimator that `save` wrote.

        Nothing in the file is run, whatever it says, so that it may come from a stranger. On the
        same machine, the same device and the same versions, it predicts bit by bit what the
        saved one did.

        Parameters
        ----------
        path : str or path-like
            The file.

        device : str or torch.device, default="auto"
            Where the network goes, and the parameter `device` of the loaded estimator.

        Returns
        -------
        estimator : CLSTransformerClassifier
            Fitted.

        Raises
        ------
        ValueError
            If the file is truncated, damaged, of a later format or of another estimator, or
            if its tensors are not those that its parameters describe; or if `device` is not there.
        """
        from sklearn_cls._persistence.model_file import load_estimator

        return load_estimator(cls, path, device)

    @property
    def module_(self):
        """The network."""
        return self.net_.module_

    @property
    def device_(self):
        """Where the network is."""
        return torch.device(self.net_.device)

    @property
    def history_(self):
        """What was recorded of each epoch."""
        return self.net_.finished_epochs()

    @property
    def loss_curve_(self):
        """Training loss of each epoch."""
        return [epoch["train_loss"] for epoch in self.history_]

    @property
    def n_iter_(self):
        """Epochs trained."""
        return len(self.history_)

    @property
    def _n_features_out(self):
        return self.module_.norm.normalized_shape[0]

    def __getstate__(self):
        """Leave out what callbacks keep of the training."""
        from sklearn_cls._training.callbacks import without_training_state

        state = super().__getstate__()
        return {**state, "callbacks": without_training_state(state["callbacks"])}

    def __sklearn_tags__(self):
        """Declare what X may be; what comes out is float32."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __sklearn_is_fitted__(self):
        """Return whether there is a trained network."""
        return hasattr(self, "net_")

    def _compute(self, X, function, *, of_steps=False):
        """Return `function` of every sequence of X."""
        check_is_fitted(self)
        sequences = check_sequences(self, X, reset=False, max_length=_reach(self.net_))
        n_last = sequences.n_steps if of_steps else None
        return self.net_.compute(sequences, function, self.n_jobs, n_last)

    def _check_consistency(self, start):
        """Check what needs no data; return the device and the user's callbacks."""
        from sklearn_cls._training.callbacks import check_callbacks

        check_consistency(self, start)
        return str(resolve_device(self.device)), check_callbacks(self.callbacks)

    def _build(self, data, train, training, start, seed, **kwargs):
        """Return the net to train on `train`, a part of `data`, going on from `start`."""
        from sklearn_cls._training.net import build_net

        mean_and_scale = None
        if self.standardize and start is None:
            mean_and_scale = train.sequences.mean_and_std(train.rows)
        return build_net(
            plan_network(self, data, len(self.classes_), seed, start),
            training,
            mean_and_scale=mean_and_scale,
            start=start,
            seed=seed,
            classes=self.classes_,
            **kwargs,
        )

    def _check_classes(self, classes):
        """Check the classes of a later call to `partial_fit` and return those of the first."""
        given = self.classes_ if classes is None else np.unique(check_labels(classes, "classes"))
        if not np.array_equal(given, self.classes_):
            raise ValueError(
                f"classes={given.tolist()} differ from those of the first call to partial_fit, "
                f"{self.classes_.tolist()}; leave them out."
            )
        return self.classes_


def _reach(net):
    """Return the steps that the positions of `net` reach to, None if there is no end."""
    return None if net is None else net.max_length


@contextmanager
def _unchanged_on_error(estimator):
    """Leave what `estimator` has learnt as it was if the fit fails."""

    def learnt():
        names = [k for k in vars(estimator) if k.endswith("_") or k == "_fitted_on_2d"]
        return {name: vars(estimator)[name] for name in names}

    before = learnt()
    try:
        yield
    except BaseException:
        for name in learnt():
            delattr(estimator, name)
        vars(estimator).update(before)
        raise
