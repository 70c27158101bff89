"""Golden tensors of one checkpoint's graph: vision, connector, logits, loss, greedy decode.

make_batch() builds two left-padded samples (1 and 2 pictures) with one all-zero padding picture
and one picture that is only partly valid. forward_golden() and greedy_golden() run transformers
on it. Logits and log-probabilities of padding positions are set to 0: their true values depend
on the attention back end and nobody uses them.
"""
import torch

from . import models, text


def image_block(spec):
    return "<fake_token_around_image><global-img>" + "<image>" * spec.tokens_per_image + (
        "<fake_token_around_image>")


def make_batch(spec):
    tokenizer = text.make_tokenizer()
    block = image_block(spec)
    prompts = [
        f"<|im_start|>User:{block}What?<end_of_utterance>\nAssistant:",
        f"<|im_start|>User:{block}{block}Compare 2.<end_of_utterance>\nAssistant: same.",
    ]
    ids = [tokenizer.encode(p, add_special_tokens=False).ids for p in prompts]
    length = max(len(row) for row in ids)
    input_ids = torch.full((2, length), text.PAD_ID)
    mask = torch.zeros((2, length), dtype=torch.int64)
    for row, tokens in enumerate(ids):
        input_ids[row, length - len(tokens):] = torch.tensor(tokens)
        mask[row, length - len(tokens):] = 1
    pixels, pixel_mask = make_pixels(spec)
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "pixel_values": pixels,
        "pixel_attention_mask": pixel_mask,
    }


def make_pixels(spec):
    """[2, 2, 3, S, S]: sample 0 has one picture and a zero one, sample 1 two, the last partial."""
    generator = torch.Generator().manual_seed(spec.seed + 1)
    size, patch = spec.tile, spec.vision["patch_size"]
    pixels = torch.rand((2, 2, 3, size, size), generator=generator) * 2 - 1
    mask = torch.ones((2, 2, size, size), dtype=torch.int64)
    pixels[0, 1] = 0
    mask[0, 1] = 0
    # A whole patch row and a part of a patch column more are invalid: the windows that still
    # hold one valid pixel count as valid.
    mask[1, 1, size - size % patch - patch:, :] = 0
    mask[1, 1, :, patch * 2 + 1:] = 0
    pixels[1, 1] = pixels[1, 1] * mask[1, 1]
    return pixels, mask


def make_labels(batch):
    labels = batch["input_ids"].clone()
    labels[labels == text.IMAGE_ID] = -100
    labels[batch["attention_mask"] == 0] = -100
    labels[:, 1:][batch["attention_mask"][:, :-1] == 0] = -100  # padding predicts nothing
    labels[0, -6:-4] = -100
    return labels


class Capture:
    """Forward hooks that keep the named inner values of one forward pass."""

    def __init__(self, model):
        self.values = {}
        core = model.model
        keep = self.values.__setitem__
        embeddings = core.vision_model.embeddings
        self.handles = [
            embeddings.register_forward_pre_hook(
                lambda _m, args, kw: keep("patch_mask", kw["patch_attention_mask"]),
                with_kwargs=True),
            embeddings.position_embedding.register_forward_pre_hook(
                lambda _m, args: keep("position_ids", args[0])),
            core.vision_model.register_forward_hook(
                lambda _m, _a, out: keep("vision_output", out.last_hidden_state)),
            core.connector.register_forward_hook(
                lambda _m, _a, out: keep("connector_output", out)),
            core.text_model.register_forward_pre_hook(
                lambda _m, args, kw: keep("inputs_embeds", kw["inputs_embeds"]),
                with_kwargs=True),
        ]

    def close(self):
        for handle in self.handles:
            handle.remove()
        return {name: value.detach().clone() for name, value in self.values.items()}


def masked(logits, mask):
    return logits * mask[..., None].to(logits.dtype)


def forward_golden(model, batch):
    """The inner values, the logits and the loss of one full forward pass."""
    labels = make_labels(batch)
    capture = Capture(model)
    with torch.no_grad():
        output = model(**batch, labels=labels, use_cache=False)
    golden = capture.close()
    golden["patch_mask"] = golden["patch_mask"].to(torch.int64)
    golden |= {"labels": labels, "loss": output.loss.reshape(1)}
    golden["logits"] = masked(output.logits, batch["attention_mask"])
    return golden


def blank_golden(model, batch):
    """Every picture zero: the first is kept all the same, so one picture's tokens are expected."""
    row = {key: value[:1].clone() for key, value in batch.items()}
    row["pixel_values"].zero_()
    row["pixel_attention_mask"].fill_(1)
    with torch.no_grad():
        logits = model(**row, use_cache=False).logits
    return {"blank_last_logits": logits[:, -1].clone()}


def gradients(model, batch, labels):
    """{"grad." + name: d loss / d parameter}, by the names of the checkpoint.

    The vision key biases are left out: softmax does not see them, so their true gradient is 0
    and a computed one is rounding noise.
    """
    model.zero_grad(set_to_none=True)
    model(**batch, labels=labels, use_cache=False).loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() < 1e-6, name
        else:
            found["grad." + name] = parameter.grad.clone()
    model.zero_grad(set_to_none=True)
    return found


def greedy_golden(model, batch, steps=12):
    """Cached greedy decode: ids [B, steps], log-probs [B, steps], raw logits [steps, B, V]."""
    with torch.no_grad():
        result = model.generate(
            **batch, max_new_tokens=steps, do_sample=False, use_cache=True,
            output_logits=True, return_dict_in_generate=True)
    ids = result.sequences[:, batch["input_ids"].shape[1]:]
    logits = torch.stack(result.logits)
    eos = torch.tensor(model.generation_config.eos_token_id)
    assert ids.shape[1] == steps and not torch.isin(ids, eos).any(), "change the seed: eos seen"
    top = logits.topk(2, dim=-1).values
    margin = (top[..., 0] - top[..., 1]).min()
    assert margin > 5e-3, f"change the seed: greedy margin {margin}"
    logprobs = logits.log_softmax(-1).gather(-1, ids.T[..., None])[..., 0].T.contiguous()
    return {"greedy_ids": ids, "greedy_logprobs": logprobs, "greedy_logits": logits}


def assert_backends_agree(folder, batch, reference):
    """Eager attention gives the same logits: the golden does not hang on one back end."""
    eager = models.load(folder, "eager")
    with torch.no_grad():
        logits = masked(eager(**batch, use_cache=False).logits, batch["attention_mask"])
    error = (logits - reference).abs().max() / reference.abs().max()
    assert error < 3e-6, f"{folder}: eager and sdpa differ by {error}"
