"""Masked LoRA: train a LoRA on part of each picture, inside ComfyUI."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The pack's extension object, imported only now so that ComfyUI starts without waiting for it."""
    try:
        from .nodes import MaskedLoraExtension
    except Exception:
        import logging

        # ComfyUI reports only the last line of an error raised here.
        logging.getLogger(__name__).exception("Masked LoRA could not be loaded")
        raise
    return MaskedLoraExtension()
