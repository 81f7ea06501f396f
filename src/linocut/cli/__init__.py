"""The command `linocut`: files in, files out.

arguments --main--> options --commands--> work on one picture
inputs, output --files--> jobs --work, one or many at a time--> files, lines, exit code
"""
