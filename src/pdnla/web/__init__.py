"""The web page ``pdnla-web``, for people who do not write Python.

* ``uploads``: files from users, within limits; ``studio``: the network, which serves one request at a time.
* ``still``, ``album``, ``film``: the functions of the tabs, without a browser.
* ``choosing``: the references most like a target.
* ``sessions``: the state of each open page; ``page``: the page itself (Gradio); ``server``: serving it.
"""
