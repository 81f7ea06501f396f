"""The codecs that the package ships, and how one is found by name, folder or id.

name | folder | id in a file --folders--> folder with model.json and model.safetensors
"""
