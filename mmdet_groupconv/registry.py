"""Registries of the scope that configs get when they are taken from the installed package.

``_base_ = 'mmdet_groupconv::retinanet/...'`` marks what it finds there with our scope. Our modules
are registered with MMDetection, so that they need no scope in users' configs; here each of its
registries gets a child that looks in its parent.
"""

import mmdet.registry
from mmengine.config import utils
from mmengine.registry import Registry

SCOPE = 'mmdet_groupconv'

REGISTRIES = {
    name: Registry(parent.name, parent=parent, scope=SCOPE, locations=parent._locations)
    for name, parent in vars(mmdet.registry).items()
    if isinstance(parent, Registry) and parent.scope == 'mmdet'
}

utils.MODULE2PACKAGE[SCOPE] = SCOPE  # the only packages that MMEngine takes configs from
