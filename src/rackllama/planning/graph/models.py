"""The graphs of models: which tensors llama.cpp computes, from the tokens of a batch to their logits.

What a layer has follows from the tensors in its header, so that one builder serves all models that are made like Llama:
Qwen, Gemma, Mistral, with experts or without; DeepSeek's attention has a function of its own.
Rules: llama.cpp, src/llama-graph.cpp and src/models.
"""

from collections.abc import Sequence

from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import TENSOR_TYPES, TensorInfo
from rackllama.planning import kv_cache
from rackllama.planning.graph.tensor import (
    F16,
    F32,
    I32,
    I64,
    Graph,
    Op,
    Tensor,
    changed,
    computed,
    experts_matmul,
    graph_input,
    leaf,
    like,
    matmul,
    permute,
    row_size,
    rows,
    store,
    view,
)
from rackllama.planning.serving import HOST, Placement, Serving
from rackllama.planning.shape import ModelShape

# In batches of fewer tokens, norms are always computed where their layer is.
SMALL_BATCH = 32
ROTATION = 64


def model_graph(
    shape: ModelShape, serving: Serving, placement: Placement, layers: Sequence[int], pins_norms: bool = True
) -> Graph:
    """All that is computed for the largest batch of a prompt by these layers, one after another.

    Without `pins_norms` a layer's first norm is left to where the layer before it is, as llama.cpp's dry run has it.
    """
    return _Builder(shape, serving, placement, pins_norms).build(layers)


class _Cache:
    """The inputs that all layers of one kind of cache share, and their own part of it."""

    def __init__(self, shape: ModelShape, serving: Serving, layer: int, tokens: int) -> None:
        self.cells = kv_cache.cells(shape, layer, serving)
        self.slots = graph_input(tokens, stored=I64)
        widest = max(kv_cache.elements(shape, other)[1] for other in range(shape.layers))
        self.value_slots = graph_input(tokens if serving.flash_attention else tokens * widest, stored=I64)
        mask = F16 if serving.flash_attention else F32
        self.mask = graph_input(self.cells, tokens // serving.streams, 1, serving.streams, stored=mask)
        self.key_rotation = _rotation(serving.key_type, shape.key_length, largest=True)
        self.value_rotation = _rotation(serving.value_type, shape.value_length, largest=False)


def _rotation(stored: str, length: int, largest: bool) -> Tensor | None:
    """The matrix by which a quantized cache's rows are spread, so that they lose less."""
    if kv_cache.cache_type(stored).block == 1 or length % ROTATION:
        return None
    size = ROTATION
    while largest and length % (size * 2) == 0:
        size *= 2
    return graph_input(size, size)


class _Builder:
    def __init__(self, shape: ModelShape, serving: Serving, placement: Placement, pins_norms: bool) -> None:
        self.shape, self.serving, self.placement = shape, serving, placement
        self.host = len(placement.layers)
        self.devices = [self.host if gpu == HOST else gpu for gpu in placement.devices(shape.layers)]
        sequences = serving.parallel
        self.tokens = serving.tokens + -serving.tokens % sequences
        self.outputs = min(serving.tokens, sequences)
        self.pins_norms = pins_norms and (placement.gpu_layers > shape.layers or self.tokens < SMALL_BATCH)
        self.graph = Graph()
        self.caches: dict[bool, _Cache] = {}

    def build(self, layers: Sequence[int]) -> Graph:
        """The graph of these layers, one after another."""
        shape = self.shape
        ids = graph_input(self.tokens, stored=I32)
        state = rows(self._weight("token_embd.weight", self.host, (shape.embedding, shape.vocabulary)), ids)
        self.graph.expand(state)
        # Batches may also come in as embeddings, which have their place even where none ever does.
        self.graph.expand(graph_input(shape.embedding, self.tokens))
        if shape.architecture.startswith("gemma"):
            state = like(Op.IN_PLACE, state)
        self.positions = graph_input(self.tokens, stored=I32)
        self.output_ids = graph_input(self.outputs, stored=I32)
        for layer in layers:
            state = self._layer(state, layer, is_last=layer == layers[-1])
        behind = self.devices[-1]
        state = self._norm(state, "output_norm.weight", behind, None)
        output = "token_embd.weight" if shape.ties_embedding else "output.weight"
        logits = matmul(self._weight(output, behind, (shape.embedding, shape.vocabulary)), state)
        if "output.bias" in shape.tensors:
            logits = like(Op.IN_PLACE, logits, self._weight("output.bias", behind, (shape.vocabulary,)))
        logits.is_output = True
        self.graph.expand(logits)
        return self.graph

    def _layer(self, state: Tensor, layer: int, is_last: bool) -> Tensor:
        before = state
        has = self.shape.layer_tensors[layer]
        current = self._layer_norm(state, layer, "attn_norm.weight")
        if "attn_kv_a_mqa.weight" in has:
            current = self._folded_attention(current, layer)
        else:
            current = self._attention(current, layer)
        if is_last:
            current, before = rows(current, self.output_ids), rows(before, self.output_ids)
        if "post_attention_norm.weight" in has:
            current = self._layer_norm(current, layer, "post_attention_norm.weight")
        middle = like(Op.IN_PLACE, current, before)
        current = self._layer_norm(middle, layer, "ffn_norm.weight")
        if "ffn_gate_inp.weight" in has:
            entering = current
            current = self._experts(entering, layer)
            if "ffn_up_shexp.weight" in has:
                current = like(Op.IN_PLACE, current, self._feed_forward(entering, layer, "_shexp"))
        else:
            current = self._feed_forward(current, layer, "")
        if "post_ffw_norm.weight" in has:
            current = self._layer_norm(current, layer, "post_ffw_norm.weight", pinned=False)
        return like(Op.IN_PLACE, current, middle)

    def _attention(self, current: Tensor, layer: int) -> Tensor:
        shape = self.shape
        kv_heads = shape.kv_heads[layer]
        lengths = (shape.key_length, shape.heads[layer]), (shape.key_length, kv_heads), (shape.value_length, kv_heads)
        if "attn_qkv.weight" in self.shape.layer_tensors[layer]:
            whole = self._through(current, layer, "attn_qkv")
            query, key, value = (
                view(whole, (length, heads, self.tokens), (row_size(F32, length), whole.strides[1]))
                for length, heads in lengths
            )
        else:
            query, key, value = (
                view(self._through(current, layer, f"attn_{name}"), (length, heads, self.tokens))
                for name, (length, heads) in zip("qkv", lengths, strict=True)
            )
        query, key = (self._head_norm(tensor, layer, name) for tensor, name in ((query, "q"), (key, "k")))
        factors = self._maybe(layer, "rope_freqs.weight")
        query, key = (self._roped(tensor, factors) for tensor in (query, key))
        if shape.architecture == "gemma3":
            query = like(Op.IN_PLACE, query)
        return self._with_cache(query, key, value, layer)

    def _with_cache(self, query: Tensor, key: Tensor, value: Tensor, layer: int) -> Tensor:
        """Remember keys and values, take from all that are remembered, and let it out of the attention."""
        cache = self._cache(layer)
        if cache.key_rotation is not None:
            query, key = self._rotated(query, cache.key_rotation), self._rotated(key, cache.key_rotation)
        if cache.value_rotation is not None:
            value = self._rotated(value, cache.value_rotation)
        # Where windows are used the order is another one upstream.
        for tensor in (query, key, value) if self.shape.window else (query, value, key):
            self.graph.expand(tensor)
        seen = self._attend(query, *self._remember(key, value, layer, cache), cache, None)
        if cache.value_rotation is not None:
            seen = self._rotated(seen, cache.value_rotation)
        return self._through(seen, layer, "attn_output")

    def _folded_attention(self, current: Tensor, layer: int) -> Tensor:
        """DeepSeek's: keys and values come from one short vector, of which a part tells the position."""
        shape, tokens = self.shape, self.tokens
        mla = shape.mla
        key_length, value_length = (mla.key_length, mla.value_length) if mla else (shape.key_length, shape.value_length)
        heads, rope = shape.heads[layer], shape.rope
        plain = key_length - rope
        if "attn_q_a.weight" in shape.layer_tensors[layer]:
            query = self._through(current, layer, "attn_q_a")
            query = self._layer_norm(query, layer, "attn_q_a_norm.weight")
            query = self._through(query, layer, "attn_q_b")
        else:
            query = self._through(current, layer, "attn_q")
        steps = (row_size(F32, key_length), row_size(F32, key_length) * heads)
        query_plain, query_rope = view(query, (plain, heads, tokens), steps), view(query, (rope, heads, tokens), steps)
        both = self._through(current, layer, "attn_kv_a_mqa")
        lora = both.dims[0] - rope
        folded = view(both, (lora, tokens), (both.strides[1],))
        key_rope = view(both, (rope, 1, tokens), (both.strides[1], both.strides[1]))
        query_rope, key_rope = self._roped(query_rope, None), self._roped(key_rope, None)
        folded = self._layer_norm(folded, layer, "attn_kv_a_norm.weight")
        if mla is not None:
            cache = self._cache(layer)
            absorbed = matmul(self._layer_weight(layer, "attn_k_b.weight"), permute(query_plain, 0, 2, 1, 3))
            absorbed = permute(absorbed, 0, 2, 1, 3)
            query = computed(Op.NEW, (lora + rope, heads, tokens), absorbed, query_rope)
            folded = view(folded, (lora, 1, tokens))
            key = computed(Op.NEW, (lora + rope, 1, tokens), folded, key_rope)
            for tensor in (query, folded, key):
                self.graph.expand(tensor)
            keys = self._remember_keys(key, layer, cache)
            values = view(keys, (lora, *keys.dims[1:]), keys.strides[1:])
            seen = self._attend(query, keys, values, cache, self._layer_weight(layer, "attn_v_b.weight"))
            return self._through(seen, layer, "attn_output")
        unfolded = self._through(folded, layer, "attn_kv_b")
        steps = (row_size(F32, plain + value_length), row_size(F32, plain + value_length) * heads)
        key_plain = view(unfolded, (plain, heads, tokens), steps)
        value = computed(Op.NEW, (value_length, heads, tokens), view(unfolded, (value_length, heads, tokens), steps))
        query = computed(Op.NEW, (key_length, heads, tokens), query_plain, query_rope)
        repeated = computed(Op.NEW, query_rope.dims, key_rope)
        key = computed(Op.NEW, (key_length, heads, tokens), key_plain, repeated)
        return self._with_cache(query, key, value, layer)

    def _remember_keys(self, key: Tensor, layer: int, cache: _Cache) -> Tensor:
        """Store the batch's keys, and look at all that the cache holds, as (length, heads, cells, streams)."""
        width = key.dims[0] * key.dims[1]
        held = self._held(width, layer, self.serving.key_type, cache)
        flat = view(held, (width, cache.cells * self.serving.streams)) if self.serving.streams > 1 else held
        self.graph.expand(store(flat, view(key, (width, self.tokens), (key.strides[2],)), cache.slots))
        return self._look(held, key.dims[0], key.dims[1], cache)

    def _remember(self, key: Tensor, value: Tensor, layer: int, cache: _Cache) -> tuple[Tensor, Tensor]:
        """Store the batch's keys and values, and look at all that the cache holds of them."""
        keys = self._remember_keys(key, layer, cache)
        length, heads = value.dims[0], value.dims[1]
        width, streams = length * heads, self.serving.streams
        held = self._held(width, layer, self.serving.value_type, cache)
        if self.serving.flash_attention:
            flat = view(held, (width, cache.cells * streams)) if streams > 1 else held
            self.graph.expand(store(flat, view(value, (width, self.tokens), (value.strides[2],)), cache.value_slots))
            return keys, self._look(held, length, heads, cache)
        # Without flash attention values lie transposed: each element of each token is stored for itself.
        if value.strides[2] == row_size(value.type, width):
            value = view(value, (width, self.tokens))
        else:
            value = computed(Op.NEW, (width, self.tokens), value)
        flat = view(held, (1, width * cache.cells * streams))
        self.graph.expand(store(flat, view(value, (1, width * self.tokens)), cache.value_slots))
        row = row_size(held.type, cache.cells)
        return keys, view(held, (cache.cells, heads, length, streams), (row * length, row, row * width))

    def _held(self, width: int, layer: int, stored: str, cache: _Cache) -> Tensor:
        kept = kv_cache.cache_type(stored)
        return leaf((width, cache.cells, self.serving.streams), kept, device=self.devices[layer])

    def _look(self, held: Tensor, length: int, heads: int, cache: _Cache) -> Tensor:
        row, step = row_size(held.type, length), held.strides[1]
        return view(held, (length, heads, cache.cells, self.serving.streams), (row, step, step * cache.cells))

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, cache: _Cache, unfold: Tensor | None) -> Tensor:
        """What each token takes from those that it sees, as (all heads, tokens)."""
        streams = keys.dims[3]
        length, heads, tokens = query.dims[:3]
        query = view(
            query,
            (length, heads, tokens // streams, streams),
            (query.strides[1], query.strides[2], query.strides[3] // streams),
        )
        transposed = values.strides[1] > values.strides[2]
        query, keys, values = (permute(tensor, 0, 2, 1, 3) for tensor in (query, keys, values))
        if self.serving.flash_attention:
            keys, values = (
                computed(Op.NEW, cached.dims, cached, stored=F16) if cached.type == F32 else cached
                for cached in (keys, values)
            )
            dims = (values.dims[0], query.dims[2], query.dims[1], query.dims[3])
            seen = computed(Op.ATTENTION, dims, query, keys, values, cache.mask)
            if unfold is not None:
                seen = permute(matmul(unfold, permute(seen, 0, 2, 1, 3)), 0, 2, 1, 3)
                seen = like(Op.NEW, seen)
            seen = view(seen, (seen.dims[0] * seen.dims[1], seen.dims[2] * seen.dims[3]))
        else:
            weights = matmul(keys, query)
            weights = like(Op.IN_PLACE, weights, cache.mask)
            if not transposed:
                values = like(Op.NEW, permute(values, 1, 0, 2, 3))
            seen = matmul(values, weights)
            if unfold is not None:
                seen = matmul(unfold, seen)
            seen = permute(seen, 0, 2, 1, 3)
            seen = computed(Op.NEW, (seen.dims[0] * seen.dims[1], seen.dims[2] * seen.dims[3]), seen)
        return self.graph.expand(seen)

    def _feed_forward(self, current: Tensor, layer: int, kind: str) -> Tensor:
        if f"ffn_gate{kind}.weight" not in self.shape.layer_tensors[layer]:
            wide = self._through(current, layer, f"ffn_up{kind}")
            # Some have gate and up in one matrix, others only one of them.
            down = self._layer_weight(layer, f"ffn_down{kind}.weight")
            inner = computed(Op.NEW, (down.dims[0], *wide.dims[1:]), wide) if down.dims[0] < wide.dims[0] else wide
            return matmul(down, inner if inner is not wide else like(Op.IN_PLACE, wide))
        up = self._through(current, layer, f"ffn_up{kind}")
        gate = self._through(current, layer, f"ffn_gate{kind}")
        return self._through(like(Op.NEW, gate, up), layer, f"ffn_down{kind}")

    def _experts(self, current: Tensor, layer: int) -> Tensor:
        shape, tokens = self.shape, current.dims[1]
        used, has = shape.experts_used, shape.layer_tensors[layer]
        scores = self._biased(
            matmul(self._layer_weight(layer, "ffn_gate_inp.weight"), current), "ffn_gate_inp.bias", layer
        )
        scores = like(Op.IN_PLACE, scores)
        ranked = scores
        if "exp_probs_b.bias" in has:
            ranked = like(Op.IN_PLACE, scores, self._layer_weight(layer, "exp_probs_b.bias"))
        order = computed(Op.NEW, ranked.dims, ranked, stored=I32)
        chosen = view(order, (used, tokens), (order.strides[1],))
        weights = rows(view(scores, (1, shape.experts, tokens)), chosen)
        if shape.expert_weights_norm:
            flat = view(weights, (used, tokens))
            total = computed(Op.NEW, (1, tokens), flat)
            total = changed(total)
            weights = view(like(Op.IN_PLACE, flat, total), (1, used, tokens))
        if shape.expert_weights_scale not in (0, 1):
            weights = like(Op.IN_PLACE, weights)
        self.graph.expand(weights)
        entering = view(current, (shape.embedding, 1, tokens))
        if "ffn_gate_up_exps.weight" in has:
            both = experts_matmul(self._expert_weight(layer, "ffn_gate_up_exps.weight"), entering, chosen)
            half = (both.dims[0] // 2, both.dims[1], both.dims[2])
            gate, up = view(both, half, both.strides[1:3]), view(both, half, both.strides[1:3])
        else:
            up = experts_matmul(self._expert_weight(layer, "ffn_up_exps.weight"), entering, chosen)
            gate = experts_matmul(self._expert_weight(layer, "ffn_gate_exps.weight"), entering, chosen)
        inner = computed(Op.NEW, gate.dims, gate, up)
        each = experts_matmul(self._expert_weight(layer, "ffn_down_exps.weight"), inner, chosen)
        each = self.graph.expand(like(Op.IN_PLACE, each, weights))
        parts = [view(each, (shape.embedding, tokens), (each.strides[2],)) for _ in range(used)]
        for part in parts:
            self.graph.expand(part)
        whole = parts[0]
        for part in parts[1:]:
            whole = self.graph.expand(like(Op.IN_PLACE, whole, part))
        return like(Op.NEW, whole) if used == 1 else whole

    def _roped(self, tensor: Tensor, factors: Tensor | None) -> Tensor:
        others = (self.positions,) if factors is None else (self.positions, factors)
        return like(Op.ROPE, tensor, *others)

    def _rotated(self, tensor: Tensor, rotation: Tensor) -> Tensor:
        size = rotation.dims[0]
        count = tensor.dims[0] * tensor.dims[1] * tensor.dims[2] * tensor.dims[3] // size
        flat = view(tensor, (size, count)) if tensor.is_contiguous else computed(Op.NEW, (size, count), tensor)
        return view(matmul(rotation, flat), tensor.dims)

    def _head_norm(self, tensor: Tensor, layer: int, name: str) -> Tensor:
        key = f"attn_{name}_norm.weight"
        return self._layer_norm(tensor, layer, key) if key in self.shape.layer_tensors[layer] else tensor

    def _layer_norm(self, tensor: Tensor, layer: int, name: str, pinned: bool = True) -> Tensor:
        found = self.shape.layer_tensors[layer].get(name)
        full = f"blk.{layer}.{name}" if found else ""
        return self._norm(tensor, full, self.devices[layer], self.devices[layer] if pinned else None)

    def _norm(self, tensor: Tensor, name: str, device: int, layer_device: int | None) -> Tensor:
        normed = like(Op.IN_PLACE, tensor)
        if name not in self.shape.tensors:
            return normed
        normed.wanted = layer_device if self.pins_norms else None
        return like(Op.IN_PLACE, normed, self._weight(name, device, self.shape.tensors[name].dims))

    def _through(self, current: Tensor, layer: int, name: str) -> Tensor:
        """Through a layer's matrix, and its bias where it has one."""
        return self._biased(matmul(self._layer_weight(layer, f"{name}.weight"), current), f"{name}.bias", layer)

    def _biased(self, current: Tensor, name: str, layer: int) -> Tensor:
        bias = self._maybe(layer, name)
        return current if bias is None else like(Op.IN_PLACE, current, bias)

    def _maybe(self, layer: int, name: str) -> Tensor | None:
        """A layer's tensor, or one that all share; None where the model has none of that name."""
        if layer < self.shape.layers and name in self.shape.layer_tensors[layer]:
            return self._layer_weight(layer, name)
        if name in self.shape.tensors:
            return self._weight(name, self.devices[layer], self.shape.tensors[name].dims)
        return None

    def _layer_weight(self, layer: int, name: str) -> Tensor:
        found = self._found(layer, name)
        return self._weight(found.name, self.devices[layer], found.dims)

    def _found(self, layer: int, name: str) -> TensorInfo:
        found = self.shape.layer_tensors[layer].get(name)
        if found is None:
            raise RackllamaError(
                f"how {self.shape.architecture} computes is not known here: its layer {layer} has no {name}",
                "let llama.cpp itself find what fits: llama-server --fit on",
            )
        return found

    def _expert_weight(self, layer: int, name: str) -> Tensor:
        found = self._found(layer, name)
        stays = layer < self.placement.experts_on_host
        return self._weight(found.name, self.host if stays else self.devices[layer], found.dims)

    def _weight(self, name: str, device: int, dims: tuple[int, ...]) -> Tensor:
        stored = TENSOR_TYPES[self.shape.tensors[name].type]
        return leaf(dims, stored, device=device, is_weight=True)

    def _cache(self, layer: int) -> _Cache:
        windowed = self.shape.windowed[layer]
        if windowed not in self.caches:
            self.caches[windowed] = _Cache(self.shape, self.serving, layer, self.tokens)
        return self.caches[windowed]
