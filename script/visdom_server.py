"""A visdom server on this machine, also without the internet, for train.py --display_id 1.

    python -m script.visdom_server
    python -m script.visdom_server --port 8097 --env_path ./visdom

``python -m visdom.server`` ends where it cannot fetch the scripts of its web page. This server runs
in any case and keeps the windows; its page shows them once the scripts could be fetched.
"""

import socket
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import script  # noqa: F401

from options.parser import Parser
from util.errors import UserError
from util.files import make_folder
from util.kinds import flag, text, whole_number
from util.run.main import run_main

FETCH_SECONDS = 10  # that one script of the page may take


def main() -> None:
    """Serve until Ctrl-C."""
    parser = Parser(__doc__)
    add = parser.option
    add("--port --display_port", whole_number(1, 65535), 8096, "port to listen on")
    add("--env_path", text, "~/.visdom", "folder that keeps the windows")
    add("--public", flag, False, "listen to other machines too, not to this one alone")
    add("--offline", flag, False, "do not try to fetch the scripts of the web page")
    opt = parser.parse()
    try:
        from visdom.server.build import download_scripts
        from visdom.server.run_server import start_server
    except ImportError as error:
        raise UserError(f"the package visdom cannot be imported ({error}); install it") from error
    folder = make_folder(Path(opt.env_path).expanduser())
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", opt.port)) == 0:
            raise UserError(f"port {opt.port} is in use; choose another --port")
    if not opt.offline:
        socket.setdefaulttimeout(FETCH_SECONDS)
        try:
            download_scripts()
        except Exception as error:  # whatever visdom raises: the server itself needs none of them
            print(
                f"the scripts of visdom's web page could not be fetched ({type(error).__name__}): "
                "its page stays empty, but the windows are kept; web/index.html of the run needs "
                "no server"
            )
        socket.setdefaulttimeout(None)
    print(f"visdom: http://127.0.0.1:{opt.port}, windows are kept in {folder}", flush=True)
    start_server(opt.port, base_url="", env_path=f"{folder}/", bind_local=not opt.public)


if __name__ == "__main__":
    run_main(main)
