"""The numbers of an experiment: YAML groups in lab/conf, and the typed form that stages get.

conf/ --params--> params.yaml --params, parse--> frozen, checked objects --stage--> main(params)
seed --params--> streams of random numbers;  process: how threads of the lab wait
"""
