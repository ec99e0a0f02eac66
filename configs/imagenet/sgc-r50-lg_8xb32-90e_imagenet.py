# SG-CNN's local and global scheme: some epochs of fine-tuning after each step, too.
_base_ = './sgc-r50_8xb32-90e_imagenet.py'
custom_hooks = [dict(type='SelfGroupingHook', steps={0: 10, 5: 20, 10: 30, 15: 40, 20: 50, 25: 60})]
