"""The web page ``pdnla-web``, for people who do not write Python.

* ``uploads``: files as users send them, within limits; ``studio``: the one network and whose turn it is.
* ``still``, ``album``: what the two tabs do, without a browser.
* ``sessions``: one for each open page; ``page``: the page itself (Gradio); ``server``: where and how it is served.
"""
