"""The page of `cogsmith serve --demo`: what only a server of tokens can show.

    page/      one HTML, one CSS file and a few modules of JavaScript; no build step, nothing from elsewhere
    routes     the page's files, and the JSON that it asks for
    asked      what a request may say, with its ranges
    models     each served model as our own client sees it, in this process; its templates
    shown      tokens as the page gets them: each with its text, its log-probability and its alternatives

The page is a client like any other: what it asks goes through the gateway's queue and is LMTP from there on.
"""
