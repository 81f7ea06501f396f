"""The command `linocut`: files in, files out.

arguments --main--> options --commands--> inputs, output, and the work on one picture
inputs, output --files--> jobs (source, target), names all different
jobs, work --files, here or in worker processes--> files, lines, exit code
"""
