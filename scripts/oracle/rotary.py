"""cos and sin of every kind of rotary positions, by the rotary classes of transformers."""
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

NEAR = torch.tensor([[0, 1, 2, 7, 15]])
FAR = torch.tensor([[0, 3, 16, 1000, 100_000]])


def of_llama(positions, **rope):
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, head_dim=64, rope_parameters=rope)
    return LlamaRotaryEmbedding(config)(torch.zeros(1), positions)


def of_phi(positions):
    rope = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.1, 1.3], long_factor=[1.5, 4.0, 30.0])
    config = Phi3Config(hidden_size=32, num_attention_heads=4, partial_rotary_factor=0.75, max_position_embeddings=512,
                        original_max_position_embeddings=16, rope_parameters=rope)
    return Phi3RotaryEmbedding(config)(torch.zeros(1), positions)


def of_sections(config_class, rotary_class, positions, **more):
    rope = dict(rope_type="default", rope_theta=10000.0, mrope_section=[4, 2, 2], **more)
    config = config_class(hidden_size=64, num_attention_heads=4, head_dim=16, rope_parameters=rope)
    return rotary_class(config)(torch.zeros(1), positions)


def split(pair):
    """Qwen2-VL's rotary gives three rows; its attention takes the sections of each, in both halves."""
    if pair[0].dim() == 3:
        return pair
    sections = [4, 2, 2] * 2
    return [torch.cat([part[i % 3] for i, part in enumerate(value.split(sections, dim=-1))], dim=-1) for value in pair]


def golden():
    three = torch.stack([NEAR + 4, NEAR * 2, NEAR.flip(1)])  # [3, 1, 5]
    found = {
        "default": of_llama(FAR, rope_type="default", rope_theta=273768.0),
        "linear": of_llama(FAR, rope_type="linear", rope_theta=10000.0, factor=8.0),
        "llama3": of_llama(FAR, rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0,
                           high_freq_factor=4.0, original_max_position_embeddings=8192),
        "short": of_phi(NEAR),
        "long": of_phi(NEAR + 1),
        "sections": split(of_sections(Qwen2VLTextConfig, Qwen2VLRotaryEmbedding, three)),
        "interleaved": of_sections(Qwen3VLTextConfig, Qwen3VLTextRotaryEmbedding, three, mrope_interleaved=True),
    }
    tensors = {"near": NEAR, "far": FAR, "three": three}
    for name, (cos, sin) in found.items():
        tensors |= {f"{name}.cos": cos.unsqueeze(1), f"{name}.sin": sin.unsqueeze(1)}
    return tensors
