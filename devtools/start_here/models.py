"""What each template takes from ComfyUI's own template of that model: files, text encoder, sampling, picture size.

A test holds every line of this to the template that ComfyUI installs, which `official` names. Links come from there.
"""

from dataclasses import dataclass, field

_HUB = "https://huggingface.co/"
_COMFY = f"{_HUB}Comfy-Org/"
_ENCODERS = f"{_HUB}comfyanonymous/flux_text_encoders/resolve/main/"
_KLEIN = f"{_COMFY}flux2-klein/resolve/main/split_files/"
_ANIMA = f"{_HUB}circlestone-labs/Anima/resolve/main/split_files/"
_QWEN = f"{_COMFY}Qwen-Image_ComfyUI/resolve/main/split_files/"
_WAN = f"{_COMFY}Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/"


@dataclass(frozen=True)
class File:
    """A file of a model: where it is had, and the folder below `models` that it goes to."""

    directory: str
    url: str

    @property
    def name(self):
        """Its name on the disk."""
        return self.url.rsplit("/", 1)[1].partition("?")[0]

    def as_json(self):
        """As ComfyUI's page offers it for download."""
        return {"name": self.name, "url": self.url, "directory": self.directory}


@dataclass(frozen=True)
class KSampler:
    """Sampling in one node."""

    steps: int
    cfg: float
    scheduler: str = "simple"
    sampler: str = "euler"


@dataclass(frozen=True)
class Guided:
    """Sampling by a guider and a schedule of its own.

    Attributes:
        cfg: Of the guider.
        schedule: Name of the node that makes the noise levels, and its widgets.
        unconditional: The second network, which knows no text; with it the guider takes two models.
        override: Widgets of the node that changes the guider's strength on the way.
    """

    cfg: float
    schedule: tuple[str, dict]
    unconditional: File | None = None
    override: dict = field(default_factory=dict)
    sampler: str = "euler"


@dataclass(frozen=True)
class Clip:
    """The clips that a video model makes.

    Attributes:
        size: (width, height) in pixels.
        frames: How many, of the model's own kind of numbers.
        rate: Frames per second.
        sound: Whether the network makes the sound with the pictures.
    """

    size: tuple[int, int]
    frames: int
    rate: int
    sound: bool = False


@dataclass(frozen=True)
class Pair:
    """How a model that edits pictures is given the picture to edit.

    Attributes:
        scale: Name of the node that brings the picture to the model's size, and its widgets.
        seen: Whether the text encoder is shown the picture with the instruction.
        method: How the picture's tokens are placed; "" where no node says so.
    """

    scale: tuple[str, dict]
    seen: bool = False
    method: str = ""


@dataclass(frozen=True)
class Model:
    """One template.

    Attributes:
        title: As its makers write it.
        official: ComfyUI's template whose facts these are.
        network: The file of a checkpoint, or of the network alone.
        sampling: How the official graph samples.
        resolution: Side of its pictures in pixels; of clips that of a square with the area of their frames.
        encoders: Files of the text encoders; none for a checkpoint.
        kind: What the loader of the text encoders is told they are for.
        vae: File of the VAE; none for a checkpoint.
        latent: Node that makes the empty picture, or the latent of the picture to edit, with which some begin.
        shift: Of the node that shifts the noise levels; none where there is no such node.
        shifter: That node.
        padding: Whether a node sets how T5's texts are filled up.
        negative: Whether there is a negative prompt; else the positive one is zeroed.
        hint: What a person should know about this model, for the note.
        subgraph: The part of the official template, where it holds several.
        clip: Its clips, where it makes such.
        normed: Whether a node keeps guided predictions as small as those of the prompt alone.
        pair: How it is given a picture to edit, where it learns from pairs.
    """

    title: str
    official: str
    network: File
    sampling: KSampler | Guided
    resolution: int = 1024
    encoders: tuple[File, ...] = ()
    kind: str = ""
    vae: File | None = None
    latent: str = "EmptySD3LatentImage"
    shift: float | None = None
    shifter: str = "ModelSamplingAuraFlow"
    padding: bool = False
    negative: bool = True
    hint: str = ""
    subgraph: str = ""
    clip: Clip | None = None
    normed: bool = False
    pair: Pair | None = None

    @property
    def files(self):
        """All files that a person needs."""
        unconditional = self.sampling.unconditional if isinstance(self.sampling, Guided) else None
        return [one for one in (self.network, unconditional, *self.encoders, self.vae) if one]


def _network(url):
    return File("diffusion_models", url)


def _encoder(url):
    return File("text_encoders", url)


def _vae(url):
    return File("vae", url)


MODELS = (
    Model(
        "SDXL",
        "sdxl_simple_example",
        File(
            "checkpoints",
            f"{_HUB}stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors?download=true",
        ),
        KSampler(25, 8, "normal"),
        latent="EmptyLatentImage",
        hint="Any SDXL checkpoint of yours will do.",
    ),
    Model(
        "Z-Image",
        "image_z_image",
        _network(f"{_COMFY}z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors"),
        KSampler(25, 4, sampler="res_multistep"),
        encoders=(_encoder(f"{_COMFY}z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors"),),
        kind="lumina2",
        vae=_vae(f"{_COMFY}z_image_turbo/resolve/main/split_files/vae/ae.safetensors"),
        shift=3.0,
        hint="This is the base. Turbo is distilled, which training undoes.",
    ),
    Model(
        "Qwen-Image",
        "image_qwen_image",
        _network(f"{_QWEN}diffusion_models/qwen_image_fp8_e4m3fn.safetensors"),
        KSampler(20, 4),
        resolution=1328,
        encoders=(_encoder(f"{_QWEN}text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors"),),
        kind="qwen_image",
        vae=_vae(f"{_QWEN}vae/qwen_image_vae.safetensors"),
        shift=3.1,
        hint="A smaller resolution trains faster: 1024, or 512 to try.",
    ),
    Model(
        "FLUX.1",
        "flux_dev_full_text_to_image",
        _network(f"{_COMFY}flux1-dev/resolve/main/flux1-dev.safetensors"),
        KSampler(20, 1),
        encoders=(_encoder(f"{_ENCODERS}clip_l.safetensors"), _encoder(f"{_ENCODERS}t5xxl_fp16.safetensors")),
        kind="flux",
        vae=_vae(f"{_COMFY}Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors"),
        negative=False,
        hint="This is dev. Schnell takes its LoRAs too.",
    ),
    Model(
        "FLUX.2 klein",
        "image_flux2_klein_text_to_image",
        _network(f"{_KLEIN}diffusion_models/flux-2-klein-base-4b.safetensors"),
        Guided(5, ("Flux2Scheduler", {"steps": 20})),
        encoders=(_encoder(f"{_KLEIN}text_encoders/qwen_3_4b.safetensors"),),
        kind="flux2",
        vae=_vae(f"{_COMFY}flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors"),
        latent="EmptyFlux2LatentImage",
        hint="This is the base. The distilled klein takes its LoRAs too.",
        subgraph="Text to Image (Flux.2 Klein 4B)",
    ),
    Model(
        "Krea 2",
        "image_krea2_turbo_t2i",
        _network(f"{_COMFY}Krea-2/resolve/main/diffusion_models/krea2_turbo_fp8_scaled.safetensors"),
        KSampler(8, 1),
        encoders=(_encoder(f"{_COMFY}Krea-2/resolve/main/text_encoders/qwen3vl_4b_fp8_scaled.safetensors"),),
        kind="krea2",
        vae=_vae(f"{_COMFY}Krea-2/resolve/main/vae/qwen_image_vae.safetensors"),
        latent="EmptyLatentImage",
        negative=False,
        hint="This is Turbo, which ComfyUI's own template names: distilled, which long training undoes.",
    ),
    Model(
        "Chroma",
        "image_chroma_text_to_image",
        _network(
            f"{_COMFY}Chroma1-HD_repackaged/resolve/main/split_files/diffusion_models/Chroma1-HD-fp8mixed.safetensors"
        ),
        Guided(3.5, ("BasicScheduler", {"scheduler": "beta", "steps": 26, "denoise": 1})),
        encoders=(_encoder(f"{_ENCODERS}t5xxl_fp8_e4m3fn_scaled.safetensors"),),
        kind="chroma",
        vae=_vae(f"{_COMFY}Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors"),
        shift=1.0,
        padding=True,
    ),
    Model(
        "Anima",
        "image_anima_base_v1",
        _network(f"{_ANIMA}diffusion_models/anima-base-v1.0.safetensors"),
        KSampler(30, 4),
        encoders=(_encoder(f"{_ANIMA}text_encoders/qwen_3_06b_base.safetensors"),),
        kind="stable_diffusion",
        vae=_vae(f"{_ANIMA}vae/qwen_image_vae.safetensors"),
        latent="EmptyLatentImage",
    ),
    Model(
        "SD 1.5",
        "default",
        File(
            "checkpoints",
            f"{_COMFY}stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors?download=true",
        ),
        KSampler(20, 8, "normal"),
        resolution=512,
        latent="EmptyLatentImage",
        hint="Any Stable Diffusion 1.5 checkpoint of yours will do.",
    ),
    Model(
        "ERNIE-Image",
        "image_ernie_image",
        _network(f"{_COMFY}ERNIE-Image/resolve/main/diffusion_models/ernie-image.safetensors"),
        KSampler(20, 4),
        encoders=(_encoder(f"{_COMFY}ERNIE-Image/resolve/main/text_encoders/ministral-3-3b.safetensors"),),
        kind="flux2",
        vae=_vae(f"{_COMFY}ERNIE-Image/resolve/main/vae/flux2-vae.safetensors"),
        latent="EmptyFlux2LatentImage",
        hint="ComfyUI's own template has a text model lengthen the prompt; here it is read as written.",
    ),
    Model(
        "Ideogram 4",
        "image_ideogram4_t2i",
        _network(f"{_COMFY}Ideogram-4/resolve/main/diffusion_models/ideogram4_fp8_scaled.safetensors"),
        Guided(
            7,
            ("Ideogram4Scheduler", {"steps": 20, "mu": 0.0, "std": 1.75}),
            unconditional=_network(
                f"{_COMFY}Ideogram-4/resolve/main/diffusion_models/ideogram4_unconditional_fp8_scaled.safetensors"
            ),
            override={"cfg": 3, "start_percent": 0.7, "end_percent": 1},
        ),
        encoders=(_encoder(f"{_COMFY}Qwen3-VL/resolve/main/text_encoders/qwen3vl_8b_fp8_scaled.safetensors"),),
        kind="ideogram4",
        vae=_vae(f"{_COMFY}flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors"),
        latent="EmptyFlux2LatentImage",
        negative=False,
        hint="Its makers trained it on captions in JSON; plain words work, less exactly.",
    ),
    Model(
        "Wan 2.2 5B",
        "video_wan2_2_5B_ti2v",
        _network(f"{_WAN}diffusion_models/wan2.2_ti2v_5B_fp16.safetensors"),
        KSampler(20, 5, sampler="uni_pc"),
        resolution=952,
        encoders=(
            _encoder(
                f"{_COMFY}Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/text_encoders/"
                "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
            ),
        ),
        kind="wan",
        vae=_vae(f"{_WAN}vae/wan2.2_vae.safetensors"),
        latent="Wan22ImageToVideoLatent",
        shift=8.0,
        shifter="ModelSamplingSD3",
        hint="A resolution of 640 trains more than twice as fast.",
        clip=Clip((1280, 704), 121, 24),
    ),
    Model(
        "LTX-2",
        "video_ltx2_t2v",
        File("checkpoints", f"{_HUB}Lightricks/LTX-2/resolve/main/ltx-2-19b-dev-fp8.safetensors"),
        Guided(
            4,
            (
                "LTXVScheduler",
                {"steps": 20, "max_shift": 2.05, "base_shift": 0.95, "stretch": True, "terminal": 0.1},
            ),
            sampler="euler_ancestral",
        ),
        resolution=480,
        encoders=(
            _encoder(f"{_COMFY}ltx-2/resolve/main/split_files/text_encoders/gemma_3_12B_it_fp4_mixed.safetensors"),
        ),
        latent="EmptyLTXVLatentVideo",
        hint="Clips are compared at half size, where ComfyUI's own template begins; sound is made, not trained.",
        clip=Clip((640, 360), 121, 24, sound=True),
    ),
    Model(
        "Qwen-Image-Edit",
        "image_qwen_image_edit_2511",
        _network(
            f"{_COMFY}Qwen-Image-Edit_ComfyUI/resolve/main/split_files/diffusion_models/"
            "qwen_image_edit_2511_fp8mixed.safetensors"
        ),
        KSampler(40, 4),
        encoders=(
            _encoder(
                f"{_COMFY}HunyuanVideo_1.5_repackaged/resolve/main/split_files/text_encoders/"
                "qwen_2.5_vl_7b_fp8_scaled.safetensors"
            ),
        ),
        kind="qwen_image",
        vae=_vae(f"{_QWEN}vae/qwen_image_vae.safetensors"),
        latent="VAEEncode",
        shift=3.1,
        hint="This is 2511. A file of 2509 goes into the loader just as well.",
        subgraph="Image Edit (Qwen-Image 2511)",
        normed=True,
        pair=Pair(("FluxKontextImageScale", {}), seen=True, method="index_timestep_zero"),
    ),
    Model(
        "FLUX.2 klein Edit",
        "image_flux2_klein_image_edit_4b_base",
        _network(f"{_HUB}black-forest-labs/FLUX.2-klein-base-4b-fp8/resolve/main/flux-2-klein-base-4b-fp8.safetensors"),
        Guided(5, ("Flux2Scheduler", {"steps": 20})),
        encoders=(_encoder(f"{_COMFY}z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors"),),
        kind="flux2",
        vae=_vae(f"{_HUB}black-forest-labs/FLUX.2-small-decoder/resolve/main/full_encoder_small_decoder.safetensors"),
        latent="EmptyFlux2LatentImage",
        hint="This is the base. The distilled klein takes its LoRAs too.",
        subgraph="Image Edit (Flux.2 Klein 4B)",
        pair=Pair(("ImageScaleToTotalPixels", {"upscale_method": "nearest-exact"})),
    ),
)
