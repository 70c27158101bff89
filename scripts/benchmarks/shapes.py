"""Shapes of the published SmolVLM2 checkpoints, for random weights."""
VOCAB, HEAD_DIM, MAX_POSITIONS = 49280, 64, 8192

SHAPES = {
    "256m": dict(
        scale_factor=4, longest_edge=2048,
        vision=dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                    num_attention_heads=12, image_size=512, patch_size=16),
        text=dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                  num_attention_heads=9, num_key_value_heads=3, rope_theta=100000.0)),
    "500m": dict(
        scale_factor=4, longest_edge=2048,
        vision=dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                    num_attention_heads=12, image_size=512, patch_size=16),
        text=dict(hidden_size=960, intermediate_size=2560, num_hidden_layers=32,
                  num_attention_heads=15, num_key_value_heads=5, rope_theta=100000.0)),
    "2.2b": dict(
        scale_factor=3, longest_edge=1536,
        vision=dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27,
                    num_attention_heads=16, image_size=384, patch_size=14),
        text=dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24,
                  num_attention_heads=32, num_key_value_heads=32, rope_theta=130000.0)),
}
