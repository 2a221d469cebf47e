"""The page: its components, and the handlers of their events.

Text from users, such as names of files, is shown as plain text, never as markup.
"""

import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import gradio as gr

from pdnla.errors import UserError
from pdnla.inference.correcting import REACH
from pdnla.inference.editing import Adjustment
from pdnla.web.album import AlbumProgress, PictureRow, colour_uploads
from pdnla.web.film import SHOWN, ShotRow, Stopped, has_film
from pdnla.web.sessions import Session, Sessions
from pdnla.web.still import Marked, Still
from pdnla.web.studio import Studio
from pdnla.web.uploads import pictures_in

TITLE = "pdnla"
AT_ONCE = 8
"""Number of requests that are handled at the same time; only one of them uses the network."""
STYLE = """
#still-file { display: none; }
.not-shown { display: none !important; }
.about { font-size: var(--text-sm); }
.gallery .grid-wrap, .clicked .image-container { padding-top: 34px; }
.gallery .grid-wrap { min-height: 0; }
.gallery .grid-container { grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); }
#film-frames .grid-container { grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }
.gallery .caption-label { max-width: 100%; overflow-wrap: anywhere; white-space: normal; }
"""
"""Style sheet of the page: labels cover no part of a picture, and thumbnails and their captions are whole."""
_SECONDS = 12  # how long a warning stays in the corner of the page
_REFERENCES = "References in colour"
_BOX = 160  # pixels: an empty box's label stays above its icon
_HINT = "Click a point of the result to see where its colour comes from."
_HIDDEN: Final = "hidden"  # with visible=False, Gradio rebuilds the page to show it, and loses updates meanwhile
_HOW = (
    "If this is the wrong place, click the right one in the reference. The region around the point of the result then"
    " takes its colours from there; the rest does not change."
)


def build_page(studio: Studio, sessions: Sessions) -> gr.Blocks:
    """Return the page.

    Args:
        studio: the network and the limits that all users share.
        sessions: the sessions of the open pages.
    """
    handlers = _Handlers(sessions)
    # One switch turns off both telemetry and the check for new versions.
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            "# pdnla\nColour a grey photograph with the colours of another one, the reference: each part takes the"
            " colours of what looks most like it there."
        )
        with gr.Tab("Still"):
            _still_tab(studio, handlers)
        with gr.Tab("Album"):
            _album_tab(studio, handlers)
        with gr.Tab("Film"):
            _film_tab(handlers)
        page.unload(handlers.close)
    page.queue(max_size=64, default_concurrency_limit=AT_ONCE, api_open=False)
    return page


def theme() -> gr.themes.Base:
    """Return the theme of the page. It only uses fonts of the user's computer."""
    look = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    # The contrast of Gradio's own colours is below the ratio of 4.5 to 1 that WCAG requires.
    return look.set(
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
    )


def _still_tab(studio: Studio, handlers: "_Handlers") -> None:
    with gr.Row():
        with gr.Column():
            target = gr.File(label="Grey picture", height=_BOX, elem_id="still-target")
            shown_target = gr.Image(
                label="Grey picture", show_label=False, interactive=False, buttons=[], height=260, visible=_HIDDEN
            )
        with gr.Column():
            references = gr.File(label=_REFERENCES, file_count="multiple", height=_BOX, elem_id="still-references")
            folder = gr.UploadButton(
                "Choose a folder of references", file_count="directory", size="sm", elem_id="still-folder"
            )
            gr.Markdown(
                _about_references(studio, "One or more; the most similar ones are offered."), elem_classes="about"
            )
            candidates = _thumbnails("References", elem_id="still-candidates")
            together = gr.Checkbox(
                label="Use all of them: each part takes its colours from the reference that matches it best",
                visible=_HIDDEN,
                elem_id="still-together",
            )
    colour = gr.Button("Colour", variant="primary", elem_id="still-colour")
    message = gr.Textbox(show_label=False, container=False, interactive=False, visible=_HIDDEN, elem_id="still-message")
    with _column(shown=False) as results:
        used = _thumbnails("Coloured with", elem_id="still-used")
        comparison = gr.ImageSlider(
            label="Before and after",
            show_label=False,
            interactive=False,
            buttons=["fullscreen"],
            max_height=720,
            elem_id="still-compare",
        )
        with gr.Row():
            saturation = _percent(0, 200, 100, step=1, label="Saturation (%)", elem_id="still-saturation")
            strength = _percent(
                0,
                100,
                100,
                step=1,
                label="Strength (%)",
                info="Below 100, the least certain colours fade first.",
                elem_id="still-strength",
            )
        with gr.Row():
            full = gr.Button("Show all pixels, to zoom in", elem_id="still-full")
            save = gr.Button("Download", variant="primary", elem_id="still-save")
            file = gr.DownloadButton(elem_id="still-file")
        where = gr.Textbox(
            value=_HINT, label="Where colours come from", interactive=False, lines=2, elem_id="still-where"
        )
        with gr.Row():
            clicked: dict[str, Any] = {"interactive": False, "buttons": ["fullscreen"], "elem_classes": "clicked"}
            result = gr.Image(label="Result", elem_id="still-result", **clicked)
            reference = gr.Image(label="Reference", elem_id="still-reference", **clicked)
        with gr.Row():
            reach = _percent(
                5,
                100,
                REACH * 100,
                step=5,
                label="Reach of a correction (%)",
                info="How far it spreads; edges and other content stop it earlier.",
                elem_id="still-reach",
            )
            undo = gr.Button("Undo the last correction", elem_id="still-undo")
    sliders = [saturation, strength]
    views = [comparison, result, reference, where, message]
    offered = [candidates, together, reference, message, results]
    # These run one at a time, so that a slow one does not overwrite the result of a later one.
    choosing: dict[str, Any] = {"concurrency_id": "choosing", "concurrency_limit": 1, "api_visibility": "private"}
    for event in (target.upload, target.clear):
        event(handlers.take_target, target, [target, shown_target, *offered], **choosing)
    for event in (references.upload, references.clear, references.delete):
        event(handlers.take_references, references, offered, **choosing)
    folder.upload(handlers.take_folder, folder, [references, *offered], **choosing)
    candidates.select(handlers.choose, None, [reference, where, message], api_visibility="private")
    colour.click(handlers.colour, [*sliders, together], [*views, full, results, used], api_visibility="private")
    for slider in sliders:
        slider.input(
            handlers.adjust,
            sliders,
            [comparison, result, message],
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
    full.click(handlers.full, sliders, [comparison, message], api_visibility="private")
    result.select(handlers.mark, None, [result, reference, where, message], api_visibility="private")
    reference.select(handlers.correct, [*sliders, reach], views, api_visibility="private")
    undo.click(handlers.undo, sliders, views, api_visibility="private")
    save.click(handlers.save, sliders, [file, message], api_visibility="private").success(
        None, None, None, js="() => { document.querySelector('#still-file').click(); }"
    )


def _album_tab(studio: Studio, handlers: "_Handlers") -> None:
    with gr.Row():
        with gr.Column():
            targets = gr.File(label="Grey pictures", file_count="multiple", height=200, elem_id="album-targets")
            targets_folder = gr.UploadButton("Choose a folder of pictures", file_count="directory", size="sm")
        with gr.Column():
            references = gr.File(label=_REFERENCES, file_count="multiple", height=200, elem_id="album-references")
            references_folder = gr.UploadButton("Choose a folder of references", file_count="directory", size="sm")
            gr.Markdown(
                _about_references(studio, "One or more; each picture takes the most similar one."),
                elem_classes="about",
            )
    with gr.Row():
        start = gr.Button("Colour all", variant="primary", elem_id="album-start")
        stop = gr.Button("Stop", variant="stop", elem_id="album-stop")
    message = gr.Textbox(show_label=False, container=False, interactive=False, lines=2, elem_id="album-message")
    archive = gr.DownloadButton("Download all results", visible=_HIDDEN, variant="primary", elem_id="album-archive")
    failures = gr.Dataframe(
        headers=["Failed", "Why"],
        column_widths=["30%", "70%"],
        label="Failures",
        visible=_HIDDEN,
        interactive=False,
        wrap=True,
        elem_id="album-failed",
    )
    rows = gr.Dataframe(
        headers=["Picture", "Reference", "Similarity"],
        label="Coloured",
        visible=_HIDDEN,
        interactive=False,
        wrap=True,
        elem_id="album-coloured",
    )
    for button, files in ((targets_folder, targets), (references_folder, references)):
        button.upload(handlers.album_folder, button, [files, message], api_visibility="private")
    start.click(
        handlers.album,
        [targets, references],
        [message, archive, failures, rows],
        show_progress="minimal",
        concurrency_limit=AT_ONCE // 2,
        api_visibility="private",
    )
    stop.click(handlers.stop_album, None, message, api_visibility="private")


def _film_tab(handlers: "_Handlers") -> None:
    if not has_film():
        gr.Markdown('Films need an extra that is not installed: `pip install "pdnla[film]"`.')
        return
    with gr.Row():
        with gr.Column():
            target = gr.File(label="Film: a video file", height=_BOX, elem_id="film-target")
        with gr.Column():
            references = gr.File(label=_REFERENCES, file_count="multiple", height=_BOX, elem_id="film-references")
            gr.Markdown(
                "One or more; each shot takes the most similar one. The table of shots names them by number.",
                elem_classes="about",
            )
    find = gr.Button("Find shots", elem_id="film-find")
    message = gr.Textbox(show_label=False, container=False, interactive=False, lines=2, elem_id="film-message")
    with _column(shown=False) as results:
        legend = gr.Textbox(label="References by number", interactive=False, lines=1, elem_id="film-legend")
        frames = gr.Gallery(
            label="A frame of each shot",
            height="auto",
            object_fit="contain",
            interactive=False,
            buttons=[],
            format="jpeg",
            elem_id="film-frames",
            elem_classes="gallery",
        )
        shots = gr.Dataframe(
            headers=["First frame", "Last frame", "References"],
            datatype=["number", "number", "str"],
            column_count=3,
            type="array",
            interactive=True,
            label="Shots: click a cell to change it; several references are separated by commas",
            elem_id="film-shots",
        )
        with gr.Row():
            start = gr.Button("Colour the film", variant="primary", elem_id="film-start")
            stop = gr.Button("Stop", variant="stop", elem_id="film-stop")
    result = gr.HTML(elem_id="film-result")
    file = gr.DownloadButton("Download the film", visible=_HIDDEN, variant="primary", elem_id="film-file")
    long: dict[str, Any] = {"concurrency_limit": AT_ONCE // 2, "api_visibility": "private"}
    views = [message, results, legend, frames, shots, result, file]
    find.click(handlers.find_shots, [target, references], views, show_progress_on=message, **long)
    start.click(handlers.film, shots, [message, result, file], show_progress="minimal", **long)
    stop.click(handlers.stop_film, None, message, api_visibility="private")


def _about_references(studio: Studio, sentence: str) -> str:
    if studio.folder is None:
        return sentence
    name = html.escape(studio.folder.name).translate({ord(mark): f"\\{mark}" for mark in "\\`*_[]$"})
    return f'{sentence} If you choose none, those in the folder "{name}" on this machine are used.'


def _thumbnails(label: str, elem_id: str) -> gr.Gallery:
    """Return a gallery of references, hidden until it has some."""
    return gr.Gallery(
        label=label,
        height="auto",
        allow_preview=False,
        object_fit="contain",
        interactive=False,
        buttons=[],
        visible=_HIDDEN,
        elem_id=elem_id,
        elem_classes="gallery",
    )


def _percent(smallest: int, largest: int, value: float, **options: Any) -> gr.Slider:
    """Return a slider whose number field may hold anything, where Gradio would fail.

    The nearest value in range counts, and the smallest one if the field is empty.
    """
    slider = gr.Slider(smallest, largest, value, **options)
    slider.preprocess = lambda number: smallest if number is None else min(max(number, smallest), largest)
    return slider


class _Handlers:
    """The handlers of the page's events. They return values for its components, or a sentence about what is wrong.

    Args:
        sessions: the sessions of the open pages.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def close(self, request: gr.Request) -> None:
        self.sessions.close(str(request.session_hash))

    def take_target(self, path: str | None, request: gr.Request) -> Iterator[list[Any]]:
        with self._session(request) as session:
            try:
                if path is None:
                    session.still.drop_target()
                    yield [gr.skip(), gr.Image(visible=_HIDDEN), *_offers(session.still, "")]
                    return
                (sent,) = session.claim_uploads(path)
                shown = gr.Image(session.still.take_target(sent), visible=True)
                yield [gr.skip(), shown, *_offers(session.still, _comparing(session.still))]
                yield [gr.skip(), gr.skip(), *self._pick(session.still)]
            except UserError as error:
                refused = [None, gr.Image(visible=_HIDDEN)] if session.still.target is None else [gr.skip()] * 2
                yield [*refused, *_offers(session.still, str(error))]

    def take_references(self, paths: list[str] | None, request: gr.Request) -> Iterator[list[Any]]:
        with self._session(request) as session:
            try:
                session.still.take_references(session.claim_uploads(paths))
                yield _offers(session.still, _comparing(session.still))
                yield self._pick(session.still)
            except UserError as error:
                yield _offers(session.still, str(error))

    def take_folder(self, paths: list[str] | None, request: gr.Request) -> Iterator[list[Any]]:
        try:
            pictures = pictures_in(paths or [])
        except UserError as error:
            yield [*[gr.skip()] * 4, _say(str(error)), gr.skip()]
            return
        for offered in self.take_references(pictures, request):
            yield [pictures, *offered]

    def _pick(self, still: Still) -> list[Any]:
        left_out = still.choose_candidates(_progress("comparing references"))
        return _offers(still, "\n".join(f"left out: {sentence}" for sentence in left_out))

    def choose(self, event: gr.SelectData, request: gr.Request) -> list[Any]:
        with self._session(request) as session, _refusing(2) as answers:
            still = session.still
            shown = still.choose(int(event.index))
            name = still.candidates[still.chosen].upload.name
            where = _HINT if still.point is None else f"Click the right place in {name} to correct the marked point."
            answers[:] = [_named(shown, name), where, _say("")]
        return answers

    def colour(self, saturation: float, strength: float, together: bool, request: gr.Request) -> Iterator[list[Any]]:
        yield [*[gr.skip()] * 4, _say("Colouring."), *[gr.skip()] * 3]
        with self._session(request) as session, _refusing(4, more=3, corner=False) as answers:
            session.still.colour(together)
            views = _views(session.still, _adjustment(saturation, strength))
            full = gr.Button(visible=_visible(session.still.reduced))
            used = session.still.used()
            answers[:] = [*views, full, _column(shown=True), gr.Gallery(used or None, visible=_visible(used))]
        yield answers

    def adjust(self, saturation: float, strength: float, request: gr.Request) -> list[Any]:
        with self._session(request) as session, _refusing(2) as answers:
            comparison = session.still.compare(_adjustment(saturation, strength))
            answers[:] = [comparison, session.still.mark().result, _say("")]
        return answers

    def full(self, saturation: float, strength: float, request: gr.Request) -> list[Any]:
        with self._session(request) as session, _refusing(1) as answers:
            comparison = session.still.compare(_adjustment(saturation, strength), full=True)
            width, height = session.still.size
            answers[:] = [
                comparison,
                _say(f"All {width} × {height} pixels are shown: zoom in, or open the full screen."),
            ]
        return answers

    def mark(self, event: gr.SelectData, request: gr.Request) -> list[Any]:
        with self._session(request) as session, _refusing(3) as answers:
            marked = session.still.mark(_point(event, session.still.result_size))
            answers[:] = [marked.result, _named(marked.reference, marked.name), _where(marked), _say("")]
        return answers

    def correct(
        self, saturation: float, strength: float, reach: float, event: gr.SelectData, request: gr.Request
    ) -> list[Any]:
        with self._session(request) as session, _refusing(4) as answers:
            session.still.correct(_point(event, session.still.reference_size), reach / 100)
            answers[:] = _views(session.still, _adjustment(saturation, strength))
        return answers

    def undo(self, saturation: float, strength: float, request: gr.Request) -> list[Any]:
        with self._session(request) as session, _refusing(4) as answers:
            if not session.still.undo():
                raise UserError("there is no correction to undo; click a point of the result and one of the reference")
            answers[:] = _views(session.still, _adjustment(saturation, strength))
        return answers

    def save(self, saturation: float, strength: float, request: gr.Request) -> list[Any]:
        with self._session(request) as session:
            try:
                return [gr.DownloadButton(value=session.still.save(_adjustment(saturation, strength))), _say("")]
            except UserError as error:  # an error stops the download that would follow
                raise gr.Error(html.escape(str(error)), duration=_SECONDS, print_exception=False) from error

    def album_folder(self, paths: list[str] | None) -> list[Any]:
        try:
            return [pictures_in(paths or []), ""]
        except UserError as error:
            return [gr.skip(), str(error)]

    def album(
        self, targets: list[str] | None, references: list[str] | None, request: gr.Request
    ) -> Iterator[list[Any]]:
        with self._session(request) as session:
            try:
                sent, offered = session.claim_uploads(targets), session.claim_uploads(references)
                session.stop_album.clear()
                folder, stop = session.folder / "albums", session.stop_album
                with closing(colour_uploads(self.sessions.studio, sent, offered, folder, stop=stop)) as states:
                    for state in states:
                        yield _progress_of(state, stop.is_set())
                        if session.closed.is_set():
                            return
            except UserError as error:
                yield [str(error), gr.skip(), gr.skip(), gr.skip()]
            finally:
                session.stop_album.set()

    def find_shots(self, target: str | None, references: list[str] | None, request: gr.Request) -> list[Any]:
        with self._session(request) as session:
            nothing = [_column(shown=False), "", None, None, "", gr.DownloadButton(visible=_HIDDEN)]
            try:
                sent = session.claim_uploads(target)
                left_out = session.film.take(sent[0] if sent else None, session.claim_uploads(references))
                shots = session.film.find_shots(_progress("finding shots"), _progress("colouring a frame of each shot"))
            except Stopped:
                return ["Stopped.", *nothing]
            except UserError as error:
                return [str(error), *nothing]
            names = [f"{number}: {one}" for number, one in enumerate(session.film.references, 1)]
            sentences = [*(f"left out: {sentence}" for sentence in left_out), *shots.remarks]
            report = "\n".join([f"{len(shots.rows)} shots found.", *sentences])
            frames = [
                (frame, f"frames {row.first} to {row.last} · reference {row.references}")
                for frame, row in zip(shots.frames, shots.rows, strict=True)
            ]
            rows = [list(row) for row in shots.rows]
            return [report, _column(shown=True), ", ".join(names), frames, rows, *nothing[4:]]

    def film(self, rows: list[list[Any]], request: gr.Request) -> Iterator[list[Any]]:
        with self._session(request) as session:
            session.stop_film.clear()
            try:
                with closing(session.film.colour(_shot_rows(rows), session.stop_film)) as states:
                    for state in states:
                        how_far = f"Frame {state.done} of {state.total}."
                        if state.result is not None:
                            how_far = f"Finished: {state.total} frames."
                        report = "\n".join([how_far, *state.remarks])
                        yield [report, *_shown_film(state.result)]
            except Stopped:
                yield ["Stopped.", gr.skip(), gr.skip()]
            except UserError as error:
                _warn(error)
                yield [str(error), gr.skip(), gr.skip()]

    def stop_album(self, request: gr.Request) -> Any:
        with self._session(request) as session:
            if session.stop_album.is_set():
                return gr.skip()
            session.stop_album.set()
        return "Stopping after this picture."

    def stop_film(self, request: gr.Request) -> Any:
        with self._session(request) as session:
            if not session.film.busy:
                return gr.skip()
            session.stop_film.set()
        return "Stopping after this frame."

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.get(str(request.session_hash))


def _offers(still: Still, sentence: str) -> list[Any]:
    """Return values for the candidates, the box for all of them, the chosen one, the message and the results."""
    thumbnails = still.thumbnails()
    gallery = gr.Gallery(
        thumbnails or None,
        label="Most similar first; click one to choose it" if len(thumbnails) > 1 else "The reference",
        visible=_visible(thumbnails),
        selected_index=0 if thumbnails else None,
    )
    reference = gr.Image(None, label="Reference")
    if thumbnails:
        reference = _named(still.choose(still.chosen), still.candidates[still.chosen].upload.name)
    together = gr.Checkbox(visible=_visible(len(thumbnails) > 1))
    return [gallery, together, reference, _say(sentence), _column(shown=still.editor is not None)]


def _comparing(still: Still) -> str:
    return f"Comparing {still.compared} references." if still.compared else ""


def _views(still: Still, adjustment: Adjustment) -> list[Any]:
    """Return values for the comparison, the marked result and reference, the origin of the colour, and the message."""
    comparison = still.compare(adjustment)
    marked = still.mark()
    return [comparison, marked.result, _named(marked.reference, marked.name), _where(marked), _say("")]


@contextmanager
def _refusing(count: int, more: int = 0, corner: bool = True) -> Iterator[list[Any]]:
    """Yield a list for the values that a handler returns; after a UserError, only the message changes.

    Args:
        count: number of values before the message.
        more: number of values after it.
        corner: show the error in the corner of the page too, because the message may be out of sight.
    """
    answers: list[Any] = []
    try:
        yield answers
    except UserError as error:
        if corner:
            _warn(error)
        answers[:] = [*[gr.skip()] * count, _say(str(error)), *[gr.skip()] * more]


def _named(reference: Path, name: str) -> gr.Image:
    """Return the reference that is shown beside the result, under its name."""
    return gr.Image(reference, label=f"Reference: {name}")


def _where(marked: Marked) -> str:
    source = marked.source
    if source is None:
        return _HINT
    if source.corrected:
        return f"Corrected: this colour comes from the marked place in {marked.name}. Undo removes the correction."
    return f"This colour comes from the marked place in {marked.name} (similarity {source.similarity:.2f}). {_HOW}"


def _progress_of(state: AlbumProgress, stopped: bool) -> list[Any]:
    failed = [row for row in state.rows if row.failure]
    coloured = [row for row in state.rows if not row.failure]
    counts = f"{state.done} of {state.total}: {len(coloured)} coloured, {len(failed)} failed"
    if stopped:
        counts = f"Stopped. {counts}"
    sentences = [counts, *(f"left out: {sentence}" for sentence in state.left_out)]
    return [
        "\n".join(sentences),
        gr.DownloadButton(value=state.archive, visible=_visible(state.archive is not None)),
        gr.Dataframe(
            [[row.name, row.failure.removeprefix(f"{row.name}: ")] for row in failed] or None, visible=_visible(failed)
        ),
        gr.Dataframe([_line(row) for row in coloured] or None, visible=_visible(coloured)),
    ]


def _line(row: PictureRow) -> list[str]:
    return [row.name, row.reference, "" if row.score is None else f"{row.score:.2f}"]


def _shot_rows(rows: Sequence[Sequence[Any]]) -> list[ShotRow]:
    """Return the rows of the table, without the empty ones.

    Raises:
        UserError: a frame is not a number.
    """
    shots = []
    for first, last, references in rows:
        if first in ("", None) and last in ("", None):
            continue
        try:
            shots.append(ShotRow(int(first), int(last), str(references or "")))
        except (TypeError, ValueError) as error:
            raise UserError(f"shot {first} to {last}: give the numbers of its first and last frame") from error
    return shots


def _shown_film(result: Path | None) -> list[Any]:
    if result is None:
        return [gr.skip(), gr.skip()]
    address = f"/gradio_api/file={quote(str(result))}"
    video = f'<video controls src="{html.escape(address)}" style="max-width: 100%"></video>'
    shown = video if result.suffix.lower() in SHOWN else ""
    return [shown, gr.DownloadButton(value=result, visible=True)]


def _adjustment(saturation: float, strength: float) -> Adjustment:
    return Adjustment(saturation / 100, strength / 100)


def _point(event: gr.SelectData, size: tuple[int, int]) -> tuple[float, float]:
    x, y = event.index
    return min(max((x + 0.5) / size[0], 0.0), 1.0), min(max((y + 0.5) / size[1], 0.0), 1.0)


def _column(shown: bool) -> gr.Column:
    """Return a column that its style hides if need be; Gradio would show one with visible="hidden"."""
    return gr.Column(elem_classes=[] if shown else ["not-shown"])


def _visible(shown: object) -> Literal[True, "hidden"]:
    return True if shown else _HIDDEN


def _say(sentence: str) -> gr.Textbox:
    return gr.Textbox(sentence, visible=_visible(sentence), lines=max(1, sentence.count("\n") + 1))


def _warn(error: UserError) -> None:
    """Show an error message in the corner of the page."""
    gr.Warning(html.escape(str(error)), duration=_SECONDS, title="This does not work")


def _progress(what: str) -> Callable[[int, int], None]:
    progress = gr.Progress()
    return lambda done, total: progress((done, total), desc=what)
