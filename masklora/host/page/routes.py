"""What the page may ask of the pack, by module: runs, data sets, frames, masks, captions, folders, demo, texts."""

from .captions.routes import CAPTION_GETS, CAPTION_POSTS
from .clips.frames import FRAME_GETS
from .clips.routes import DRAFT_GETS, DRAFT_POSTS
from .dataset_routes import DATASET_GETS, DATASET_POSTS
from .demo_routes import DEMO_GETS, DEMO_POSTS
from .edit_routes import EDIT_GETS, EDIT_POSTS
from .folder_routes import FOLDER_GETS, FOLDER_POSTS
from .picture_routes import PICTURE_GETS
from .requests import Handler, add_routes, has_routes
from .run_routes import RUN_GETS, RUN_POSTS
from .telling import MESSAGE_GETS


def register(more_gets: dict[str, Handler], more_posts: dict[str, Handler]) -> None:
    """Add these and others to ComfyUI's server, once; without a server nothing happens."""
    if not has_routes():
        gets = more_gets | RUN_GETS | PICTURE_GETS | DATASET_GETS | EDIT_GETS | CAPTION_GETS | FOLDER_GETS | DEMO_GETS
        gets = gets | FRAME_GETS | DRAFT_GETS | MESSAGE_GETS
        add_routes(
            gets,
            more_posts
            | DRAFT_POSTS
            | RUN_POSTS
            | DATASET_POSTS
            | EDIT_POSTS
            | CAPTION_POSTS
            | FOLDER_POSTS
            | DEMO_POSTS,
        )
