"""The page that a person opens in a browser to see what an expansion holds: one HTML file that asks for nothing else.

    measuring   figures of each frame, and which frames are worth a look
    pictures    a frame as the page's script wants it: 16-bit pixels, waveform, histogram
    page        all of it in words and numbers, and the template around it

Apart from runs.py because a run folder is files, and this is about reading them. uPlot, which draws the charts, lies
with its licence in assets/.
"""
