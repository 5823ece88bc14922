"""A CLIP's text encoders with adapters and a new word: captions become conditioning that can be differentiated."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ...adapters import AdapterSet
from ...adapters.text_encoders import ENCODER_PREFIX, WORD_PREFIX, about_texts
from ...autograd.forwards import Forward, replaced_forwards
from ...autograd.places import Place, exchanged
from ...cache.cache import Cache, Mender
from ...errors import CacheError
from ...folder.captions import with_word
from ...optimizers.optim import Part
from ...runs.lora_file import LoraRecord
from ...settings import AdapterSettings
from ..finders.borrowed import unload
from ..model.encoders import literal_tokens
from ..model.patches import autograd_parameters, recast_layers
from .parts import TextRequest, aliases, encoders_of, stems, told, trained_layers, with_lora
from .word import new_vectors, tokenizer_with, word_name

# ComfyUI computes all of CLIP in it.
DTYPE = torch.float32
KEPT_TEXTS = 64
_LANGUAGE_MODEL = "t5xxl"


class TrainedTexts:
    """A private clone of a CLIP, with what is trained of it.

    Nothing of the user's CLIP changes: the clone shares its weights, and everything that `alone` and `session` do to
    the shared modules is undone when these end.

    Attributes:
        clip: The clone.
        encoders: Names of the encoders of which something is trained.
        adapters: Of their layers, ejected; None where only a word is trained.
        word: The new word's name; "" for none.
        vectors: Its vectors by encoder, float32 (count, width).
        params: All that is trained, by name.
    """

    def __init__(
        self, request: TextRequest, adapter: AdapterSettings, *, seed: int, captions: Mapping[str, str], trigger: str
    ) -> None:
        """With new adapters and vectors.

        Args:
            request: From `text_request`.
            adapter: The model's own, without open defaults: dropout, start and scale are taken from it.
            seed: Of the values.
            captions: Text of each caption by its key in the cache; "" is the empty one's.
            trigger: Of the data set, for which a new word stands.

        Raises:
            ConfigError: There is to be a new word and no trigger word, or `word_start` does not fit.
        """
        settings, found = request.settings, encoders_of(request.clip)
        self.settings, self.captions, self.trigger = settings, captions, trigger
        self._given, self.clip = request.clip, request.clip.clone()
        self._module: nn.Module = self.clip.cond_stage_model
        # The session has loaded it.
        self.clip.load_model = lambda tokens={}: self.clip.patcher
        self.device = torch.device(self.clip.patcher.load_device)
        chosen = with_lora(settings, found)
        self.encoders = found if settings.new_word else chosen
        self._kind = type(self.clip.tokenizer).__qualname__
        layers = trained_layers(self._module, chosen)
        self.adapters = self._new_adapters(adapter, layers, seed) if layers else None
        self.stems, self.aliases = stems(layers, self._kind), aliases(layers, self._kind)
        self.word, self.vectors = "", {}
        if settings.new_word:
            self.word, many = word_name(trigger), settings.word_vectors
            made = new_vectors(self._given, found, count=many, start=settings.word_start, seed=seed)
            for vectors in made.values():
                vectors.data = vectors.data.to(self.device)
            self.vectors = made
            self.clip.tokenizer = tokenizer_with(self.clip.tokenizer, self.word, lambda: self.vectors)
        self.params: dict[str, nn.Parameter] = {f"{WORD_PREFIX}{n}": v for n, v in self.vectors.items()}
        if self.adapters is not None:
            self.params |= {f"{ENCODER_PREFIX}{n}": p for n, p in self.adapters.parameters().items()}
        self._training = True
        self._dropping: bool | None = None
        self._kept: OrderedDict[str, tuple[Any, dict[str, Any]]] = OrderedDict()
        self._opened = contextlib.ExitStack()

    def _new_adapters(self, adapter: AdapterSettings, layers: list[str], seed: int) -> AdapterSet:
        settings = self.settings
        own = AdapterSettings(
            algorithm="rslora" if adapter.algorithm == "rslora" else "lora",
            rank=settings.rank or adapter.rank,
            alpha=settings.alpha or (float(settings.rank) if settings.rank else adapter.alpha),
            dropout=adapter.dropout,
            init=adapter.init,
        )
        with torch.inference_mode(False), autograd_parameters(self._module):
            return AdapterSet(self._module, own, targets=layers, seed=seed, device=self.device)

    @property
    def patcher(self) -> Any:
        """What ComfyUI loads: within `alone` the encoders of CLIP only."""
        return self.clip.patcher

    def parts(self, learning_rate: float) -> list[Part]:
        """What is trained with rates of its own; `learning_rate` is for those that are left to the model's."""
        settings, found = self.settings, []
        if self.adapters is not None:
            rate = settings.learning_rate or learning_rate
            found.append(Part(ENCODER_PREFIX, rate, settings.stop_after, "Text encoder"))
        if self.vectors:
            rate = settings.word_learning_rate or learning_rate
            found.append(Part(WORD_PREFIX, rate, settings.word_stop_after, "New word"))
        return found

    def told(self) -> str:
        """A line on what is trained."""
        return told(self.encoders, len(self.stems), word=self.word)

    def kept(self) -> dict[str, Any]:
        """What the run's folder keeps about it, see `runs.texts`."""
        scalings = {n: self.adapters.scaling(n) for n in self.adapters.targets} if self.adapters else {}
        return about_texts(scalings, self.stems, word=self.word, trigger=self.trigger)

    @contextlib.contextmanager
    def alone(self, cache: Cache) -> Iterator[None]:
        """While it lasts ComfyUI loads the encoders of CLIP without a language model that is beside them.

        What that made of captions is in the cache, which can make no more of them meanwhile.
        """
        unload(self._given.patcher)
        mender = cache.mend
        modules = self._module._modules
        places = [Place(vars(mender), "text")] if isinstance(mender, Mender) and mender.text else []
        fillers = [_Busy(mender.text.identity)] if places else []
        if modules.get(_LANGUAGE_MODEL) is not None:
            places.append(Place(modules, _LANGUAGE_MODEL))
            fillers.append(_Known())
        with exchanged(zip(places, fillers, strict=True)):
            # Told anew, without the weights that are not there.
            self.patcher.size = 0
            try:
                yield
            finally:
                unload(self.patcher)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """While it lasts the encoders are differentiable and carry their adapters; their weights are loaded."""
        self.wake()
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Within a session: the modules are ComfyUI's own again until `wake`."""
        self._opened.close()

    def wake(self) -> None:
        """The session goes on; the weights are loaded."""
        with torch.inference_mode(False), contextlib.ExitStack() as stack:
            stack.enter_context(autograd_parameters(self._module))
            stack.enter_context(recast_layers(self._module, dtype=DTYPE, device=self.device))
            if self.adapters is not None:
                stack.callback(self.adapters.drop_cast)
                stack.enter_context(self.adapters.injected())
            stack.enter_context(replaced_forwards(self._norms(), _of_a_copy))
            stack.callback(self._kept.clear)
            self._opened = stack.pop_all()

    def _norms(self) -> list[nn.Module]:
        named = self._module.named_modules()
        return [m for name, m in named if ".encoder.layers." in name and name.endswith(("layer_norm1", "layer_norm2"))]

    def set_training(self, on: bool) -> None:
        """Switch the adapters' dropout."""
        self._training = on

    def live(self, key: str, text: dict[str, Any]) -> dict[str, Any]:
        """The conditioning of a caption by the encoders as they are now, to be derived by what is trained of them.

        Args:
            key: Of the caption in the cache.
            text: What the cache holds of it, from which all is taken that CLIP does not make.
        """
        learns = any(p.requires_grad for p in self.params.values())
        self._set_dropping()
        if (learns and torch.is_grad_enabled()) or (self._dropping and self.adapters and self.adapters.dropout):
            return self._encoded(self._tokens(self.captions[key], literal=True), text)
        state = [(p.untyped_storage()._cdata, p._version) for p in self.params.values()]
        known = self._kept.pop(key, None)
        made = known[1] if known and known[0] == state else self._still(key, text)
        self._kept[key] = state, made
        if len(self._kept) > KEPT_TEXTS:
            self._kept.popitem(last=False)
        return made

    def _still(self, key: str, text: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            return self._encoded(self._tokens(self.captions[key], literal=True), text)

    def _set_dropping(self) -> None:
        """Dropout is drawn while the adapters learn, not once they stay as they are."""
        own = [p for name, p in self.params.items() if name.startswith(ENCODER_PREFIX)]
        wanted = self._training and any(p.requires_grad for p in own)
        if self.adapters is not None and wanted != self._dropping:
            self.adapters.set_training(wanted)
        self._dropping = wanted

    def prompt(self, text: str, known: dict[str, Any]) -> dict[str, Any]:
        """As `live` of a prompt, whose parentheses are weights; `known` is its conditioning without the training."""
        self._set_dropping()
        with torch.no_grad():
            return self._encoded(self._tokens(text, literal=False), known)

    def _tokens(self, text: str, *, literal: bool) -> dict[str, Any]:
        if self.word:
            text = with_word(text, self.trigger, f"embedding:{self.word}")
        return literal_tokens(self.clip, text) if literal else self.clip.tokenize(text)

    def _encoded(self, tokens: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
        if self.adapters is not None:
            self.adapters.cast(DTYPE)
        beside = self._module._modules.get(_LANGUAGE_MODEL)
        if isinstance(beside, _Known):
            beside.text = self._beside(tokens, text)
        ((cond, options),) = self.clip.encode_from_tokens_scheduled(tokens, show_pbar=False)
        return {**text, **options, "cond": cond}

    def _beside(self, tokens: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
        """What the language model made of a text, out of the conditioning of both."""
        if self._kind == "FluxTokenizer":
            return text
        there = [name for name in ("l", "g") if getattr(self._module, f"clip_{name}") is not None]
        lengths = [sum(map(len, tokens[name])) for name in there]
        return {**text, "cond": text["cond"][:, min(lengths) :]}


class _Known(nn.Module):
    """In place of a language model: what it made of a text before."""

    text: dict[str, Any]

    def encode_token_weights(self, tokens: Any) -> tuple[Any, ...]:
        """As ComfyUI's: features, nothing pooled, and what else there is."""
        features = self.text["cond"].to(comfy.model_management.intermediate_device())
        extra = {name: self.text[name] for name in ("attention_mask",) if name in self.text}
        return (features, None, extra) if extra else (features, None)

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Nothing: which layer is read was decided when the text was encoded."""

    def reset_clip_options(self) -> None:
        """Nothing."""


@dataclasses.dataclass
class _Busy:
    """In place of the cache's text encoder while that is trained."""

    identity: str
    pictures: str = ""

    def encode(self, texts: list[str]) -> list[dict[str, Any]]:
        """Never: what it is now is not what the cache was made with."""
        raise CacheError(
            "A caption's entry in the cache is gone or damaged, and none is made while its text encoder is trained. "
            "Queue the graph again: the cache is made whole, and the training goes on from its checkpoint."
        )


def _of_a_copy(norm: nn.Module, inner: Forward) -> Forward:
    """ComfyUI adds to what it has given to a norm in place, which autograd needs as it was."""

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return inner(x.clone() if torch.is_grad_enabled() else x, *args, **kwargs)

    return forward


def with_texts(record: LoraRecord, texts: TrainedTexts, parts: Sequence[Part]) -> LoraRecord:
    """The record of a LoRA file that tells of the text encoders too."""
    told = {**dataclasses.asdict(texts.settings), "rates": {part.title: part.learning_rate for part in parts}}
    extra = {**record.extra, "text_encoder": told}
    record = dataclasses.replace(record, extra=extra)
    return called(record, texts.word) if texts.word else record


def called(record: LoraRecord, word: str) -> LoraRecord:
    """The record of a LoRA file that goes with the embedding file of this name, for which its new word is written."""
    # The plain word says nothing to another program.
    return dataclasses.replace(record, extra={**record.extra, "embedding": word}, trigger=f"embedding:{word}")


def captions_of(cache: Cache) -> dict[str, str]:
    """The text of each caption by its key, and of those without trigger word; "" is the empty one's."""
    found = {"": ""}
    for entry in cache.entries:
        found[entry.empty_key] = ""
        for caption in entry.captions:
            found[caption.key] = caption.text if caption.key else ""
            if caption.plain_key:
                found[caption.plain_key] = caption.plain or ""
    return found
