"""Small Florence-2 and SAM 2 folders with random weights, written as transformers' own classes save them."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)

SIDE = 64
BOS, PAD, EOS = 0, 1, 2
OPENING = ["<s>", "<pad>", "</s>", "<unk>"]
MARKS = ["<image>", "<poly>", "</poly>", "<sep>", "<od>", "</od>", "<ground>", "<obj>"]
PARSERS = (
    "phrase_grounding",
    "pure_text",
    "description_with_bboxes",
    "description_with_polygons",
    "polygons",
    "bboxes",
    "description_with_bboxes_or_polygons",
)


def boxed(*numbers):
    """The text of one box as Florence-2 writes it, in thousandths of the picture."""
    return "".join(f"<loc_{number}>" for number in numbers)


def write_florence2(folder, *, answer=""):
    """A Florence-2 folder; with `answer`, its generation settings make that text the most likely one.

    The settings raise the score of the answer's next token after each of its beginnings, and a little that
    of the end of the text: random weights would else go on for a thousand tokens.
    """
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(_florence2_config(tokenizer))
    model.generation_config = GenerationConfig(
        bos_token_id=BOS,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
        forced_bos_token_id=BOS,
        sequence_bias=_biases(tokenizer, answer),
    )
    model.save_pretrained(folder)
    _florence2_processor(tokenizer).save_pretrained(folder)
    return folder


def write_sam2(folder, *, video=False):
    """A SAM 2 folder; with `video` one that declares the video type, as published ones do."""
    torch.manual_seed(0)
    config = _sam2_video_config() if video else _sam2_config()
    (Sam2VideoModel if video else Sam2Model)(config).save_pretrained(folder)
    sizes = {name: {"height": side, "width": side} for name, side in (("size", SIDE), ("mask_size", SIDE // 4))}
    images = Sam2ImageProcessor(**sizes)
    processor = Sam2VideoProcessor(images, Sam2VideoVideoProcessor(**sizes)) if video else Sam2Processor(images)
    processor.save_pretrained(folder)
    return folder


def _tokenizer():
    """Every byte is a token: nothing is unknown, and no vocabulary has to be learned."""
    names = OPENING + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=1024,
        extra_special_tokens={"image_token": "<image>"},
    )
    places = [f"<loc_{i}>" for i in range(1000)]
    tokenizer.add_tokens([AddedToken(name, special=True) for name in [*MARKS, *places]])
    return tokenizer


def _florence2_config(tokenizer):
    width = 16
    return Florence2Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_config={
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 8, width, width),
            "num_heads": (1, 1, 2, 2),
            "num_groups": (1, 1, 2, 2),
            "window_size": 4,
            "projection_dim": width,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": width,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 1100,
            "bos_token_id": BOS,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": EOS,
        },
    )


def _florence2_processor(tokenizer):
    images = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    images.image_seq_length = (SIDE // 32) ** 2 + 1
    return Florence2Processor(images, tokenizer, post_processor_config={name: {} for name in PARSERS})


def _biases(tokenizer, answer):
    tokens = [*tokenizer(answer, add_special_tokens=False).input_ids, EOS]
    text = [BOS, *tokens]
    return [[text[: n + 1], 1000.0] for n in range(1, len(text))] + [[[EOS], 100.0]]


def _sam2_parts():
    return {
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [8, 4, 4, 2],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[SIDE // n, SIDE // n] for n in (4, 8, 16)],
            "fpn_hidden_size": 32,
        },
        "prompt_encoder_config": {"hidden_size": 32, "image_size": SIDE},
        "mask_decoder_config": {
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    }


def _sam2_config():
    return Sam2Config(**_sam2_parts())


def _sam2_video_config():
    return Sam2VideoConfig(
        **_sam2_parts(),
        image_size=SIDE,
        memory_attention_hidden_size=32,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_rope_feat_sizes=[SIDE // 16, SIDE // 16],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )
