"""Operations and bytes of a model, counted from its sizes."""
import dataclasses


@dataclasses.dataclass
class Sizes:
    """Widths and counts of a model, and the lengths of the sequences that two sizes of one picture give its encoder."""
    vision_width: int
    vision_inner: int
    vision_layers: int
    patch_values: int  # numbers of a patch
    connector: int  # weights of the connector's matrices
    patches_per_feature: int
    hidden: int
    inner: int
    layers: int
    query_width: int
    key_width: int
    vocabulary: int
    tied: bool
    pictures: dict  # "small", "large" → lengths of the encoder's sequences
    labels: dict  # "small", "large" → what the picture is called

    def vision_block(self):
        return 4 * self.vision_width**2 + 2 * self.vision_width * self.vision_inner

    def text_block(self):
        return 2 * self.hidden * (self.query_width + self.key_width) + 3 * self.hidden * self.inner

    def head(self):
        return self.hidden * self.vocabulary


def count_parameters(sizes):
    """Parameters of the whole model but for norms, biases, patches and positions."""
    tables = 1 if sizes.tied else 2
    return (sizes.vision_layers * sizes.vision_block() + sizes.connector + sizes.layers * sizes.text_block()
            + tables * sizes.head())


def count_picture(sizes, lengths):
    """Operations of the encoder and the connector for sequences of `lengths` patches."""
    total = 0
    for patches in lengths:
        block = 2 * patches * sizes.vision_block() + 4 * patches**2 * sizes.vision_width
        stem = 2 * patches * sizes.patch_values * sizes.vision_width
        features = patches // sizes.patches_per_feature
        total += sizes.vision_layers * block + stem + 2 * features * sizes.connector
    return total


def count(sizes, prompt_tokens):
    """Operations of each picture and each prompt ("small", "large"), and the weights that a new token reads."""
    work = {"parameters": count_parameters(sizes), "head_weights": sizes.head(),
            "decode_weights": sizes.layers * sizes.text_block() + sizes.head()}
    for size, tokens in prompt_tokens.items():
        attention = 2 * tokens**2 * sizes.query_width  # half of the square is masked
        work[f"encode_{size}_flop"] = count_picture(sizes, sizes.pictures[size])
        work[f"prefill_{size}_flop"] = (
            sizes.layers * (2 * tokens * sizes.text_block() + attention) + 2 * sizes.head())
    return work
