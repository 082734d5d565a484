"""The estimator: parameters, `fit`, and the methods of a fitted model.

skorch and the modules that import it are imported lazily: skorch dominates the import time.
"""

import warnings
from numbers import Integral, Real

import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.metadata_routing import UNUSED

from sklearn_cls._compat import (
    CallbackSupportMixin,
    Interval,
    StrOptions,
    fit_context,
    init_callback_context,
    with_callbacks,
)
from sklearn_cls._dask.dispatch import current_client, lazy_for_dask
from sklearn_cls._data.dask_collections import computed
from sklearn_cls._data.errors import errors_name_validation_data
from sklearn_cls._data.scaler import fit_scaler
from sklearn_cls._data.split import split_for_validation
from sklearn_cls._data.targets import (
    check_groups,
    check_labels,
    check_same_classes,
    check_targets,
    check_validation_targets,
)
from sklearn_cls._data.validation import check_sequences
from sklearn_cls._data.warning_filters import FILTERS_LOCK
from sklearn_cls._network.cls_token import CLS_STRATEGIES
from sklearn_cls._network.embedding import EMBEDDINGS
from sklearn_cls._network.encoder import POOLINGS
from sklearn_cls._network.positions import POSITIONS
from sklearn_cls._torch.device import resolve_device
from sklearn_cls._torch.random import draw_seed
from sklearn_cls._torch.settings import torch_settings
from sklearn_cls._training.auto import check_consistency, network_params, training_params
from sklearn_cls._training.data_parallel import current_processes
from sklearn_cls._training.fitted import (
    FittedAttributesMixin,
    current_model,
    finished_model,
    on_copy,
)
from sklearn_cls._version import DOCUMENTATION

AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
AUTO = StrOptions({"auto"})


class CLSTransformerClassifier(
    FittedAttributesMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    BaseEstimator,
):
    """Transformer encoder that classifies sequences by their [CLS] vector.

    A [CLS] token is prepended to the steps of a sequence, a transformer encoder lets it attend to
    them, and a linear layer classifies its output, the [CLS] vector. Sequences may be multivariate,
    of unequal length, and have missing values. `transform` returns the [CLS] vector,
    `cls_attention` the attention of [CLS] to each step.

    Parameters
    ----------
    cls_strategy : {"learned", "zeros", "fixed", "random"}, default="learned"
        Value of the [CLS] token. "learned" is a trained parameter; "zeros" is constant; "fixed" is
        drawn once from a standard normal distribution; "random" is drawn anew for every sequence of
        every training batch, and once, from the seed, for prediction. Only used if `pooling` is
        "cls".

    pooling : {"cls", "mean", "max", "attention"}, default="cls"
        How the output of the encoder becomes one vector: the [CLS] token; the mean or the maximum
        over steps, without a token; or a learned token that is prepended before the last block.

    depth : int, default=2
        Number of encoder blocks. With `pooling="cls"`, the last block is much cheaper than the
        others.

    d_model : int, default=64
        Size of the tokens and of the vectors that `transform` returns, a multiple of `n_heads`.

    n_heads : int, default=4
        Number of attention heads. Attention is slow if `d_model / n_heads` is below 16.

    dim_feedforward : int, default=128
        Size of the hidden layer in each block.

    dropout : float in [0, 1), default=0.1
        Dropout rate of tokens, residual branches and the hidden layer, rounded to a multiple of
        1/256. Attention weights have no dropout.

    embedding : {"linear", "conv"}, default="conv"
        How a patch of steps becomes a token: a linear layer, or two convolutions with batch norm,
        which also see the neighboring steps, followed by a linear layer.

    patch_size : int or "auto", default="auto"
        Number of steps per token. "auto" is the smallest that divides a training sequence of
        median length into at most 64 tokens. It is larger if a few sequences are so much longer
        that attention would take most of the time.

    positions : {"sinusoidal", "learned", "rope"} or None, default="sinusoidal"
        Position encoding: fixed sinusoids or learned vectors that are added to the tokens, or
        rotations of queries and keys. With "learned", no sequence may be longer than the longest
        one in `fit`. Use None if the order of the steps carries no information. [CLS] has no
        position.

    standardize : bool, default=True
        Whether to standardize each feature by the mean and standard deviation of the training data,
        in float64, before it is rounded to float32. If, in more than a tenth of the sequences, the
        standard deviation of some feature is below 1 % of its standard deviation over all
        sequences, instance-normalized features are added as inputs. With or without it, a feature
        that does not vary in `fit` is ignored.

    categorical_features : "from_dtype", None, or array-like of bool, int or str, \
            default="from_dtype"
        Which features are codes, whose values have no order: names, indices or a mask of features.
        "from_dtype" means columns of text, categories or booleans of a data frame, arrays of text,
        and sequences that are strings. Integers are numbers unless they are named here. Each code
        has a learned vector; codes that do not occur in `fit` share one, missing codes another.

    max_epochs : int or "auto", default="auto"
        Number of passes over the training data. "auto" is the number that gives 600 updates, more
        with batches below 32 (850 with batches of 16, 1200 with batches of 8), and at least 10
        epochs.

    batch_size : int or "auto", default="auto"
        Number of sequences per update. "auto" is a power of 2 near a tenth of the training
        sequences, from 8 to 128; if more than 8 processes train together, it may be larger, see
        the page on defaults. All batches of an epoch have nearly the same size.

    lr : float or "auto", default="auto"
        Peak learning rate of AdamW. It rises linearly during the first tenth of all updates (up to
        three tenths with batches of more than 128), then falls along half a cosine to 0. "auto" is
        2e-3 for batches of 16 and grows with the square root of the batch size (1.4e-3 for 8,
        5.7e-3 for 128); it is multiplied by 64 / `d_model` in networks wider than 64. If the loss
        jumps, halve `lr`.

    weight_decay : float, default=0.01
        Decoupled weight decay of the weight matrices; biases, norms, positions and [CLS] have none.

    label_smoothing : float in [0, 1), default=0.1
        Fraction of each target that is distributed evenly over all classes.

    augment : bool or "auto", default="auto"
        Whether to augment the training sequences by time warping (a random, smoothly changing
        speed) and, half of them, by CutMix along time (a segment is replaced by that of another
        sequence, and the target is mixed accordingly). Use False if the class depends on the speed
        or on a single step, or if the sequences are sets. "auto" is True if all features are
        numbers, and time warping only if one is a clock. If some are codes, it is neither; instead,
        a tenth of the codes of each feature with at most 32 categories become unknown at random.

    class_weight : dict, "balanced" or None, default=None
        Weight of each class in the loss, multiplied by `sample_weight`. "balanced" weights are
        inversely proportional to the class frequencies.

    early_stopping : bool, default=False
        Whether to stop when the loss of a validation set has not decreased for `n_iter_no_change`
        epochs. The weights of the best epoch are restored. The validation set is passed to `fit`
        as `X_val` and `y_val`, or held out of the training sequences.

    validation_fraction : float in (0, 1), default=0.1
        Fraction of the training sequences to hold out, stratified by class, or fraction of the
        groups if `groups` is passed to `fit`. Only used if `early_stopping` is True and `X_val` is
        not passed.

    n_iter_no_change : int, default=10
        Number of epochs without improvement before stopping. Only used if `early_stopping` is True.

    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous call. Classes, features and the
        parameters of the architecture must be the same; inputs are standardized as before.

    device : str or torch.device, default="auto"
        "cpu", "cuda", "cuda:1" or "mps"; "auto" is CUDA if available, otherwise the CPU. With
        several CUDA devices, the workers of a parallel search are distributed over them.

    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the forward pass. "auto" is bfloat16 autocast on CUDA devices that support it
        if `d_model` is at least 256, and float32 otherwise.

    n_jobs : int or None, default=None
        Number of torch threads, at most one per core that the process may use; -1 uses all cores,
        -2 all but one. None chooses one thread per 131,072 elements (sequences x tokens x
        `d_model`) of a training batch, at least one and at most `torch.get_num_threads()`: more
        threads do not speed up smaller batches. For prediction, the elements of all sequences are
        counted, and each thread processes different batches. Where fewer threads can be started,
        fewer are used.

    callbacks : list of callbacks or None, default=None
        skorch callbacks (see :mod:`skorch.callbacks`), (name, callback) tuples of them, and
        callbacks of scikit-learn 1.9 or newer, such as :class:`sklearn.callback.ProgressBar`, which
        are called at every epoch of `fit`. Any of them can stop the training. A search clones these
        callbacks with its estimator: to monitor a whole search, call `set_callbacks` on the search
        (for a progress bar) or on this estimator (for a `ScoringMonitor`).

    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, dropout, [CLS] token, batches, augmentation and validation
        split. With an int, fits on the CPU with the same number of threads are bitwise identical.

    verbose : int, default=0
        1 shows a progress bar with epoch, loss and remaining time.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.

    n_features_in_ : int
        Number of features per step; for a 2-D X, its number of columns, which are the steps.

    feature_names_in_ : ndarray of shape (n_features,)
        Column names, if X was a data frame or a list of data frames.

    n_iter_ : int
        Number of epochs.

    history_ : dict of list
        One value per epoch for each of "epoch", "train_loss" (on augmented sequences), "lr" at the
        end of the epoch and "dur" in seconds; with early stopping also "valid_loss" and
        "valid_accuracy". "train_loss_best" and "valid_loss_best" say whether the loss was the
        lowest so far. Callbacks may add more; where they recorded nothing, the value is None.

    loss_curve_ : list of float
        Training loss of each epoch.

    net_ : skorch.NeuralNetClassifier
        The skorch net that trained the network, without the training data and its own history.

    module_ : torch.nn.Module
        The network. Its inputs are values that `net_.scaler` has standardized.

    device_ : torch.device
        Device of the network.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : Multi-layer perceptron for feature vectors.

    Notes
    -----
    The encoder follows [1]_, the [CLS] token [2]_. The last block computes the [CLS] token only,
    with the same result as the full encoder; the page "How it works" shows why. The rounding
    error of a float32 sum depends on the order of its terms, so the probabilities of a sequence may
    differ in the last digits between batches.

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

    _parameter_constraints = {  # noqa: RUF012
        "cls_strategy": [StrOptions(set(CLS_STRATEGIES))],
        "pooling": [StrOptions(set(POOLINGS))],
        "depth": [AT_LEAST_1],
        "d_model": [AT_LEAST_1],
        "n_heads": [AT_LEAST_1],
        "dim_feedforward": [AT_LEAST_1],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "embedding": [StrOptions(set(EMBEDDINGS))],
        "patch_size": [AT_LEAST_1, AUTO],
        "positions": [StrOptions(set(POSITIONS)), None],
        "standardize": ["boolean"],
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
        "max_epochs": [AT_LEAST_1, AUTO],
        "batch_size": [AT_LEAST_1, AUTO],
        "lr": [Interval(Real, 0, None, closed="neither"), AUTO],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "augment": ["boolean", AUTO],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [AT_LEAST_1],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "n_jobs": [AT_LEAST_1, Interval(Integral, None, -1, closed="right"), None],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # A path is not sample metadata, so there is no `set_fit_request(checkpoint=...)`.
    __metadata_request__fit = {"checkpoint": UNUSED}  # noqa: RUF012

    # scikit-learn's HTML diagrams link to this documentation.
    _doc_link_module = "sklearn_cls"
    _doc_link_template = DOCUMENTATION + "generated/{estimator_module}.{estimator_name}.html"

    def __init__(
        self, *, cls_strategy="learned", pooling="cls", depth=2, d_model=64, n_heads=4,
        dim_feedforward=128, dropout=0.1, embedding="conv", patch_size="auto",
        positions="sinusoidal", standardize=True, categorical_features="from_dtype",
        max_epochs="auto", batch_size="auto", lr="auto", weight_decay=0.01, label_smoothing=0.1,
        augment="auto", class_weight=None, early_stopping=False, validation_fraction=0.1,
        n_iter_no_change=10, warm_start=False, device="auto", precision="auto", n_jobs=None,
        callbacks=None, random_state=None, verbose=0,
    ):  # fmt: skip
        self.cls_strategy = cls_strategy
        self.pooling = pooling
        self.depth = depth
        self.d_model = d_model
        self.n_heads = n_heads
        self.dim_feedforward = dim_feedforward
        self.dropout = dropout
        self.embedding = embedding
        self.patch_size = patch_size
        self.positions = positions
        self.standardize = standardize
        self.categorical_features = categorical_features
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.augment = augment
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X, y, sample_weight=None, checkpoint=None, *, X_val=None, y_val=None,
        sample_weight_val=None, groups=None,
    ):  # fmt: skip
        """Train on sequences.

        Ctrl-C ends training with a warning and leaves a usable model, with the weights of the best
        epoch if `early_stopping` is True, otherwise with those of the last update. Before the end
        of the first epoch, KeyboardInterrupt is raised and the estimator is unchanged.

        If a batch does not fit into the memory of a GPU, it is computed in micro-batches, with a
        warning.

        Parameters
        ----------
        X : array-like of shape (n_sequences, n_steps, n_features) or (n_sequences, n_steps), \
                or list of arrays of shape (n_steps_i, n_features) or (n_steps_i,)
            Sequences. NaN is a missing value, and trailing steps that are all NaN are padding. A
            memory map is read batch by batch. A collection of dask is fitted in the workers of the
            current client, if there is one.

        y : array-like of shape (n_sequences,)
            Class labels.

        sample_weight : array-like of shape (n_sequences,), default=None
            Weight of each sequence in the loss; sequences with weight 0 are left out.

        checkpoint : str, bytes, path-like or None, default=None
            Path of a file from which an interrupted fit can be resumed. It is written at the end of
            an epoch, at most once every 5 seconds, and deleted when the fit has finished. After a
            crash or Ctrl-C, the same call resumes from it and, on the same machine with the same
            number of threads, ends with the weights of an uninterrupted fit. `n_jobs`, `verbose`
            and `callbacks` may differ.

        X_val : array-like or list of arrays, default=None
            Sequences of the validation set for early stopping, by default held out of X. In a
            :class:`~sklearn.pipeline.Pipeline` with `transform_input=["X_val"]`, they are
            transformed as X is.

        y_val : array-like of shape (n_val,), default=None
            Class labels of `X_val`, all of which must occur in y.

        sample_weight_val : array-like of shape (n_val,), default=None
            Weight of each sequence of `X_val` in the validation loss, multiplied by
            `class_weight`.

        groups : array-like of shape (n_sequences,), default=None
            Group of each sequence, such as the person it comes from: no group is in both the
            training and the validation set. Only used if `early_stopping` is True and `X_val` is
            None.

        Returns
        -------
        self : CLSTransformerClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or an argument is invalid, if `X_val` is passed without
            `early_stopping=True`, if `checkpoint` belongs to other data or parameters, or if
            training diverges. The estimator is then unchanged.
        TypeError
            If `checkpoint` is not a path.
        RuntimeError
            If a callback stops training before the end of the first epoch, or if a process of a fit
            in several processes is lost.
        OSError
            If `checkpoint` is not a regular file, is in use by another fit, or cannot be written at
            the beginning. A later failure to write gives a warning.
        """
        if (client := current_client(X)) is not None:
            from sklearn_cls._dask.fit import fit_on_cluster

            self._fitted = fit_on_cluster(
                client, self, X=X, y=y, sample_weight=sample_weight, checkpoint=checkpoint,
                X_val=X_val, y_val=y_val, sample_weight_val=sample_weight_val, groups=groups,
            )  # fmt: skip
            return self
        from sklearn_cls._persistence.checkpoint import open_checkpoint
        from sklearn_cls._persistence.fingerprint import check_same_fit
        from sklearn_cls._training.callbacks import EpochBar, ScikitLearnCallbacks, early_stopping

        processes = current_processes()
        previous = self._fitted if self.warm_start else None
        warm_start_net = getattr(previous, "net", None)
        device, callbacks, sklearn_callbacks = self._check_params(
            warm_start_net, has_validation=self.early_stopping
        )
        data, classes, features = self._check_data(X, y, sample_weight, previous)
        valid = self._check_validation_data(
            X_val, y_val, sample_weight_val, data, classes, features, previous
        )
        if groups is not None:
            groups = check_groups(groups, data.sequences)[data.indices]
        check_same_fit(self, data, classes, processes)
        checkpoint = open_checkpoint(
            checkpoint, self, data, valid, groups, classes, features.vocabularies, device,
            warm_start_net, processes,
        )  # fmt: skip
        with torch_settings(), EpochBar() as bar, checkpoint:
            if checkpoint.seed is None:
                checkpoint.seed = processes.broadcast(self._draw_seed(warm_start_net))
            train = data
            if self.early_stopping:
                if valid is None:
                    train, valid = split_for_validation(
                        data, self.validation_fraction, checkpoint.seed, groups
                    )
                callbacks.append(("_early_stopping", early_stopping(self.n_iter_no_change)))
            training = training_params(
                self, train, n_processes=processes.size, batch_size=checkpoint.batch_size
            )

            metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
            hook_kwargs = {"estimator": self, "X": X, "y": y, "metadata": metadata}
            context = init_callback_context(self, sklearn_callbacks, training["max_epochs"])
            context.call_on_fit_task_begin(**hook_kwargs)
            is_shown = self.verbose and processes.rank == 0
            callbacks += [("_progress_bar", bar)] if is_shown else []
            adapter = ScikitLearnCallbacks(
                context, hook_kwargs, lambda net: {"_fitted": current_model(net, classes, features)}
            )
            callbacks += [("_scikit_learn", adapter), ("_checkpoint", checkpoint)]
            net = self._build_net(
                data, train, training, classes, features, warm_start_net, checkpoint.seed,
                device=device, callbacks=callbacks, valid=valid, processes=processes,
            )  # fmt: skip
            fitted = finished_model(net.train(train, self.n_jobs), classes, features)
            context.call_on_fit_task_end(
                **hook_kwargs, reconstruction_attributes={"_fitted": fitted}
            )
            self._fitted = fitted  # before the checkpoint is deleted
        if net.is_interrupted:
            resume = "warm_start=True to continue from these weights"
            if checkpoint.n_epochs:  # A file without finished epochs has been deleted.
                resume = f"checkpoint={checkpoint.path!r} to resume"
            warnings.warn(
                f"Training was interrupted in epoch {min(fitted.n_epochs + 1, net.max_epochs)} of "
                f"{net.max_epochs}: the model is usable, but may not have converged. Call fit "
                f"again with {resume}.",
                UserWarning,
                stacklevel=4,
            )
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on a batch of sequences, at the constant learning rate `lr`.

        The first call sets the features, the classes and the statistics by which inputs are
        standardized. Features that do not vary in it are ignored in later calls, too, with a
        warning if they vary there. `max_epochs` and `early_stopping` are ignored, and sample
        weights are not rescaled. The optimizer is kept between calls, but is lost when the
        estimator is cloned, pickled or saved.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `fit`.

        y : array-like of shape (n_sequences,)
            Class labels.

        classes : array-like of shape (n_classes,), default=None
            All classes. Only needed in the first call, if its `y` lacks some of them.

        sample_weight : array-like of shape (n_sequences,), default=None
            As in `fit`.

        Returns
        -------
        self : CLSTransformerClassifier
            The fitted estimator.
        """
        self._validate_params()  # scikit-learn's decorator validates in the first call only
        processes = current_processes()
        previous = self._fitted
        warm_start_net = getattr(previous, "net", None)
        with torch_settings():
            device, callbacks, _ = self._check_params(warm_start_net, has_validation=False)
            if self.class_weight == "balanced":
                raise ValueError(
                    "class_weight='balanced' needs the frequencies of all classes, which "
                    "partial_fit does not know; pass a dict of class weights."
                )
            data, classes, features = self._check_data(
                X, y, sample_weight, previous, classes, is_part=True
            )
            training = training_params(self, data, one_epoch=True, n_processes=processes.size)
            seed = processes.broadcast(self._draw_seed(warm_start_net))
            net = self._build_net(
                data, data, training, classes, features, warm_start_net, seed,
                device=device, callbacks=callbacks, processes=processes,
            )  # fmt: skip
            net.train(data, self.n_jobs)
            self._fitted = finished_model(net, classes, features, keep_optimizer=True)
            is_interrupted = net.is_interrupted
            # Freeing tensors after this block, in a daemon thread while Python exits, would abort.
            del net, previous, warm_start_net, data
        if is_interrupted:
            # The epoch is finished and the estimator fitted, but Ctrl-C must end the caller's loop.
            raise KeyboardInterrupt
        return self

    @lazy_for_dask
    def predict(self, X):
        """Return the most probable class of each sequence.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `fit`. Unless `positions` is "learned", they may be longer than those in
            `fit`. After a fit on a 2-D X, however, a 2-D X must have the same number of columns.

        Returns
        -------
        y : ndarray of shape (n_sequences,)
            Class labels. For a collection of dask, each method returns an array or a frame of
            dask, which is computed later.
        """
        model = self._fitted_model()
        return model.classes[self._predict(model, X, model.class_codes)[:, 0].astype(int)]

    @lazy_for_dask
    def predict_proba(self, X):
        """Return the probability of each class for each sequence.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        probabilities : ndarray of shape (n_sequences, n_classes), float32
            Probabilities in the order of `classes_`.

        Raises
        ------
        RuntimeError
            If the network computes NaN or infinity, because its weights are damaged. `predict`,
            `transform` and `cls_attention` raise it, too.
        """
        model = self._fitted_model()
        return self._predict(model, X, model.probabilities)

    @lazy_for_dask
    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class for each sequence.

        It is finite, also where the probability is too small for float32.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_sequences, n_classes), float32
            Logarithms in the order of `classes_`.
        """
        model = self._fitted_model()
        return self._predict(model, X, model.log_probabilities)

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of `predict`.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        y : array-like of shape (n_sequences,)
            Class labels.

        sample_weight : array-like of shape (n_sequences,), default=None
            Weight of each sequence.

        Returns
        -------
        accuracy : float
            Fraction of the sequences whose class is predicted correctly.
        """
        from sklearn.metrics import accuracy_score

        y_pred, y = computed(self.predict(X)), check_labels(y, "y")
        sample_weight = computed(sample_weight)
        with FILTERS_LOCK:
            return accuracy_score(y, y_pred, sample_weight=sample_weight)

    def transform(self, X):
        """Return the [CLS] vector of each sequence, after the final norm.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        embeddings : ndarray of shape (n_sequences, d_model), float32
            The input of the last linear layer.
        """
        model = self._fitted_model()
        return self._predict(model, X, model.module.embed)

    @lazy_for_dask
    def cls_attention(self, X):
        """Return the attention of [CLS] to each step.

        Parameters
        ----------
        X : array-like or list of arrays
            Sequences as in `predict`.

        Returns
        -------
        attention : ndarray of shape (n_sequences, n_blocks, n_heads, n_steps), float32
            Attention weights of [CLS] on the steps, renormalized without its weight on itself. The
            weight of a patch is distributed evenly over its steps. For each block and head, the
            weights sum to 1 over the steps of a sequence, and are 0 after its end. `n_steps` is
            that of the array, or of the longest sequence of a list. `n_blocks` is `depth`, or 1 if
            `pooling` is "attention", whose token is prepended before the last block.

        Raises
        ------
        ValueError
            If `pooling` is "mean" or "max", which have no [CLS] token.
        """
        model = self._fitted_model()
        model.check_has_token()
        return self._predict(model, X, model.module.cls_attention, is_per_step=True)

    def save(self, path):
        """Save the fitted estimator to a file without pickle.

        The file is in safetensors format. Weights and the columns of the history are tensors;
        parameters, classes and features are JSON in its metadata. It is written atomically: a crash
        leaves either the old file or the new one. A symbolic link is followed; the mode, the owner
        and the group of an existing file are kept.

        Parameters
        ----------
        path : str, bytes or path-like
            Path of the file, by convention with the extension ".safetensors".

        Raises
        ------
        OSError
            If `path` is a directory, a pipe or a device, or if the file cannot be written. An
            existing file is then unchanged.
        TypeError
            If a class label or a parameter cannot be saved without pickle.
        ValueError
            If a parameter has been set to an invalid value, or if the names of classes and features
            take more than 16 MB.

        Warns
        -----
        UserWarning
            If `callbacks` is set: callbacks are code and are not saved. If callbacks recorded
            values that JSON cannot represent: they are None in the file. If the owner or the group
            of the file cannot be kept.

        See Also
        --------
        load : Load the file.

        Notes
        -----
        Neither are `device` and `n_jobs`, which depend on the machine, the optimizer, and metadata
        requests (`set_fit_request`), which `joblib.dump` keeps.
        """
        from sklearn_cls._persistence.model_file import save_estimator

        with torch_settings():
            save_estimator(self, self._fitted_model(), path)

    def export_onnx(self, path):
        """Write the computation of `predict_proba` to an ONNX file, for use without this library.

        ONNX Runtime and other runtimes compute it in any language, also in browsers. The file is
        written atomically, as by `save`, and cannot be loaded by `load`.

        Parameters
        ----------
        path : str, bytes or path-like
            Path of the file, by convention with the extension ".onnx".

        Raises
        ------
        ImportError
            If onnx or onnxscript is not installed: ``pip install 'sklearn_cls[onnx]'``.
        OSError
            If the file cannot be written.
        TypeError
            If a class label or a category is neither text nor a number.
        ValueError
            If a feature is a clock, whose inputs are computed from dates.

        See Also
        --------
        export_torch : Write the same computation for PyTorch.
        save : Write a file that `load` reads.

        Notes
        -----
        The graph has opset 18. It takes one input, `x`, float32 of shape (batch, steps, features),
        with any batch size and number of steps. NaN is a missing value; steps at the end of a
        sequence in which all features are NaN are padding. Values are standardized in the graph. A
        code is its position in the list of its categories, from 1; 0 is a code that is not in
        the list.

        The outputs are `probabilities`, float32 (batch, n_classes); `label`, int64 (batch,), the
        position of the most probable class; and `cls_embedding`, float32 (batch, d_model), as
        returned by `transform`. Probabilities differ from those of `predict_proba` by rounding.

        The metadata of the model are JSON texts: "classes", "feature_names", "vocabularies" (the
        categories by the number of the feature), "max_steps" (with `positions="learned"`),
        "opset" and "versions"; and "weights_sha256", a checksum of what the fit has learned.
        """
        from sklearn_cls._export.files import export_onnx

        with torch_settings():
            export_onnx(self, self._fitted_model(), path)

    def export_torch(self, path):
        """Write the computation of `predict_proba` to a file that `torch.export.load` reads.

        Input, outputs, metadata and errors are those of `export_onnx`; onnx is not needed. The
        metadata are extra files of the archive.

        Parameters
        ----------
        path : str, bytes or path-like
            Path of the file, by convention with the extension ".pt2".

        See Also
        --------
        export_onnx : Write the same computation to an ONNX file.
        """
        from sklearn_cls._export.files import export_torch

        with torch_settings():
            export_torch(self, self._fitted_model(), path)

    @classmethod
    def load(cls, path, device="auto"):
        """Load an estimator that `save` has written.

        No code in the file is run, so it may come from an untrusted source. With the same machine,
        device and versions, its predictions are bitwise identical to those of the saved estimator.

        Parameters
        ----------
        path : str, bytes or path-like
            Path of the file.

        device : str or torch.device, default="auto"
            Device of the network, and parameter `device` of the loaded estimator.

        Returns
        -------
        estimator : CLSTransformerClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If the file is truncated, damaged, in a later format, or of another estimator; if it
            holds what no fit can have left; or if `device` is not available.
        """
        from sklearn_cls._persistence.model_file import load_estimator

        return load_estimator(cls, path, device)

    @property
    def _n_features_out(self):
        return self.module_.norm.normalized_shape[0]

    def __getstate__(self):
        """Return the state without the attributes that training has set on callbacks."""
        state = {**super().__getstate__()}  # a copy, as another thread may refit
        if state["callbacks"]:
            from sklearn_cls._training.callbacks import strip_callbacks

            state["callbacks"] = strip_callbacks(state["callbacks"])
        return state

    def __sklearn_tags__(self):
        """Return tags for 2-D and 3-D input with NaN, and for float32 output."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_params(self, warm_start_net, *, has_validation):
        """Check parameters; return the device, and skorch and scikit-learn callbacks."""
        from sklearn_cls._training.callbacks import check_callbacks

        check_consistency(self, warm_start_net)
        callbacks = check_callbacks(self.callbacks, has_validation=has_validation)
        return str(resolve_device(self.device)), *callbacks

    def _check_data(self, X, y, sample_weight, previous, classes=None, *, is_part=False):
        """Check X, y and the weights; return the dataset, the classes and the features."""
        features = max_length = None
        if previous is not None:
            features, max_length = previous.features, previous.module.max_length
            check_same_classes(classes, previous.classes)
            classes = previous.classes
        sequences, features = check_sequences(
            X, type(self).__name__, features, max_length, self.categorical_features
        )
        classes, data = check_targets(self, sequences, y, sample_weight, classes, is_part=is_part)
        return data, classes, features

    def _check_validation_data(self, X, y, sample_weight, data, classes, features, previous):
        """Check `X_val`, `y_val` and `sample_weight_val`; return a dataset, or None without them.

        `data` is the dataset of training.
        """
        if X is None and y is None and sample_weight is None:
            return None
        if X is None or y is None:
            missing = "X_val" if X is None else "y_val"
            raise ValueError(f"The validation set needs X_val and y_val, but {missing} is None.")
        if not self.early_stopping:
            raise ValueError(
                "X_val and y_val are used only for early stopping, but early_stopping=False; set "
                "early_stopping=True, or call fit without them."
            )
        max_length = None
        if previous is not None:
            max_length = previous.module.max_length
        elif self.positions == "learned":
            max_length = int(data.lengths.max())
        with errors_name_validation_data():
            sequences, _ = check_sequences(X, type(self).__name__, features, max_length)
            return check_validation_targets(self, sequences, y, sample_weight, classes, data)

    def _draw_seed(self, warm_start_net):
        """Return the seed of a fit, a different one for each fit that continues training."""
        n_epochs = 0 if warm_start_net is None else warm_start_net.n_epochs_trained
        return draw_seed(self.random_state, n_epochs)

    def _build_net(self, data, train, training, classes, features, warm_start_net, seed, **kwargs):
        """Return the net to train on `train`, a subset of `data`."""
        from sklearn_cls._training.net import build_net

        scaler = fit_scaler(
            train.sequences, train.indices, self.standardize, features.input_names,
            previous=getattr(warm_start_net, "scaler", None),
        )  # fmt: skip
        return build_net(
            network_params(self, data.scaled(scaler), len(classes), seed, warm_start_net),
            training,
            scaler=scaler,
            train=train.scaled(scaler),
            warm_start_net=warm_start_net,
            seed=seed,
            classes=classes,
            **kwargs,
        )

    def _predict(self, model, X, function, *, is_per_step=False):
        """Apply `function` to all sequences of X and return the results."""
        from sklearn_cls._training.predict import predict_batches

        name, max_length = type(self).__name__, model.module.max_length
        sequences, _ = check_sequences(X, name, model.features, max_length)
        n_steps = sequences.n_steps if is_per_step else None
        return predict_batches(model.net, sequences, function, self.n_jobs, n_steps)


# scikit-learn wraps `transform` for `set_output` after the class has been created.
CLSTransformerClassifier.transform = lazy_for_dask(on_copy(CLSTransformerClassifier.transform))
